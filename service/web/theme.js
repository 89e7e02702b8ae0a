// Before the first paint, so that nobody sees the other theme flash: not a module, which would run later.
(() => {
  const kept = (() => {
    try {
      return localStorage.getItem("depthlens.theme");
    } catch {
      return null; // storage may be closed to the page
    }
  })();
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
})();
