// What scrolls can be reached and scrolled with the keyboard, also where it got too wide after the theme looked.
const mark = (block) => {
  const scrolls = block.scrollWidth > block.clientWidth || block.scrollHeight > block.clientHeight + 1;
  if (scrolls && getComputedStyle(block).overflowX !== "visible") block.tabIndex = 0;
  else block.removeAttribute("tabindex");
};
document.addEventListener("DOMContentLoaded", () => {
  const kinds = ["figure", "div.math", ".pst-scrollable-table-container", ".cell_output > .output"];
  const blocks = document.querySelectorAll(kinds.map((kind) => `.bd-article ${kind}`).join(", "));
  const watch = new ResizeObserver((entries) => entries.forEach(({ target }) => mark(target)));
  blocks.forEach((block) => watch.observe(block));
  document.addEventListener("math-shown", () => blocks.forEach(mark));
});

// Math is shown once it is set and its fonts are there, or after a while whatever happened; see book.css.
addEventListener("load", () => {
  const show = () => {
    document.documentElement.dataset.math = "set";
    setTimeout(() => document.dispatchEvent(new Event("math-shown")), 500);
  };
  Promise.resolve(window.MathJax?.startup?.promise).then(() => document.fonts.ready).then(show, show);
  setTimeout(show, 5000);
});

// Paper is white.
addEventListener("beforeprint", () => {
  const root = document.documentElement;
  root.dataset.screen = root.dataset.theme;
  root.dataset.theme = "light";
});
addEventListener("afterprint", () => { document.documentElement.dataset.theme = document.documentElement.dataset.screen; });
