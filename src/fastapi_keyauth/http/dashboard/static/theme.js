// A classic script in the head, before the first paint: a module would run too late, and the page would flash.
// Without a choice, the browser's own preference applies.
(() => {
  try {
    const chosen = localStorage.getItem("keyauth.theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage is switched off: the browser's preference applies.
  }
})();
