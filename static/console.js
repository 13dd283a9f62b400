// Niceties over pages that work without them: local times, copy buttons, the theme, toasts.
(function () {
  "use strict";

  var THEMES = ["system", "light", "dark"];
  var TOAST_MS = 8000;

  function localise(root) {
    root.querySelectorAll("time[datetime]").forEach(function (element) {
      var moment = new Date(element.getAttribute("datetime"));
      if (isNaN(moment)) return;
      element.title = moment.toLocaleString(undefined, {
        weekday: "short", day: "numeric", month: "short", year: "numeric",
        hour: "2-digit", minute: "2-digit", timeZoneName: "short"
      });
      if (element.hasAttribute("data-clock")) element.textContent = clock(moment);
    });
  }

  // The time of day, with the day unless that is today.
  function clock(moment) {
    var parts = { hour: "2-digit", minute: "2-digit" };
    var isToday = moment.toDateString() === new Date().toDateString();
    if (!isToday && Math.abs(moment - Date.now()) < 6 * 864e5) parts.weekday = "short";
    else if (!isToday) { parts.day = "numeric"; parts.month = "short"; }
    return moment.toLocaleString(undefined, parts);
  }

  function select(element) {
    var range = document.createRange();
    range.selectNodeContents(element);
    var selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
  }

  function copy(button) {
    var source = document.getElementById(button.dataset.copy);
    if (!source) return;
    var label = button.textContent;
    function done(text) {
      button.textContent = text;
      setTimeout(function () { button.textContent = label; }, 2000);
    }
    // The clipboard needs a secure page; elsewhere the text is selected, ready to be copied.
    if (!navigator.clipboard) { select(source); done("Selected"); return; }
    navigator.clipboard.writeText(source.textContent).then(
      function () { done("Copied"); },
      function () { select(source); done("Selected"); }
    );
  }

  function theme() {
    try { return localStorage.getItem("carousel.theme") || "system"; } catch (error) { return "system"; }
  }

  function setTheme(name) {
    try { localStorage.setItem("carousel.theme", name); } catch (error) { /* this page only */ }
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
  }

  function nameTheme(button) {
    button.hidden = false;
    button.textContent = "Theme: " + theme();
  }

  function fade(root) {
    root.querySelectorAll(".toast-success").forEach(function (toast) {
      setTimeout(function () { toast.remove(); }, TOAST_MS);
    });
  }

  document.addEventListener("click", function (event) {
    var button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.copy) copy(button);
    else if (button.hasAttribute("data-close")) button.closest(".toast").remove();
    else if (button.hasAttribute("data-theme-switch")) {
      setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
      nameTheme(button);
    }
  });

  document.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll("[data-copy]").forEach(function (button) { button.hidden = false; });
    document.querySelectorAll("[data-theme-switch]").forEach(nameTheme);
    localise(document);
    fade(document);
  });
  // The pressed button may be gone from the answer: the focus stays at its account.
  var acted = "";
  document.addEventListener("htmx:beforeRequest", function (event) {
    var account = event.target.closest("article");
    acted = account ? account.id : "";
  });
  document.addEventListener("htmx:afterSettle", function () {
    var account = acted && document.getElementById(acted);
    if (account && document.activeElement === document.body) {
      account.querySelector(".account-acts a, .account-acts button").focus({ preventScroll: true });
    }
    acted = "";
    localise(document);
    fade(document);
  });

  // A region that is fetched anew stays scrolled as it was, and open what was opened.
  var kept = [];
  document.addEventListener("htmx:beforeSwap", function () {
    kept = [];
    // Of the whole page: an answer may bring more regions than the one that asked.
    document.querySelectorAll(".scroll[id], details[id][open]").forEach(function (old) {
      kept.push({ id: old.id, left: old.scrollLeft, top: old.scrollTop });
    });
  });
  document.addEventListener("htmx:afterSwap", function () {
    kept.forEach(function (was) {
      var element = document.getElementById(was.id);
      if (!element) return;
      if (element.tagName === "DETAILS") element.open = true;
      element.scrollLeft = was.left;
      element.scrollTop = was.top;
    });
  });

  function offline(lost) {
    var line = document.getElementById("offline");
    if (line) line.hidden = !lost;
  }
  document.addEventListener("htmx:sendError", function () { offline(true); });
  document.addEventListener("htmx:afterRequest", function (event) {
    if (event.detail.successful) offline(false);
  });
})();
