// Set the chosen theme before the first paint; without a choice the system decides.
(function () {
  try {
    var theme = localStorage.getItem("carousel.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch (error) { /* storage is off: the system decides */ }
})();
