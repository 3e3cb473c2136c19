// Tables and code that are wider than the page can be scrolled with the keyboard.
document.addEventListener("DOMContentLoaded", () => {
  const wide = ".table-wrapper, .highlight pre, .sidebar-scroll, .toc-scroll";
  const update = () => {
    for (const element of document.querySelectorAll(wide)) {
      const scrolls =
        element.scrollWidth > element.clientWidth || element.scrollHeight > element.clientHeight;
      if (scrolls) element.tabIndex = 0;
      else element.removeAttribute("tabindex");
    }
  };
  update();
  window.addEventListener("resize", update);
});
