// Shows the admin API's schema; what is tried out there carries the console's CSRF token.
"use strict";

const place = document.getElementById("api-docs");
const shown = document.createElement("div");
place.append(shown);

SwaggerUIBundle({
  url: place.dataset.schema,
  domNode: shown,
  deepLinking: true,
  requestInterceptor(request) {
    if (new URL(request.url, location.href).origin === location.origin) {
      request.headers["X-CSRFToken"] = place.dataset.csrfToken;
    }
    return request;
  },
});
