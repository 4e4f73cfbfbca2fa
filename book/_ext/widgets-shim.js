// Runs after require.js and before the widget manager. It (1) finds the manager's icon fonts beside the manager,
// (2) keeps Font Awesome from replacing the icons of widgets, which breaks the Play button, (3) gives the manager the
// MathJax 2 call it expects, left empty on purpose: text of widgets comes from data and is not typeset.
(function () {
  var base = document.currentScript.src.replace(/[^\/]*$/, "");
  require.config({ paths: { "@jupyter-widgets": base + "jupyter-widgets",
                            "@jupyter-widgets/html-manager/dist": base + "jupyter-widgets" } });
  window.FontAwesomeConfig = { observeMutations: false };
  document.addEventListener("DOMContentLoaded", function () {
    if (window.MathJax && !window.MathJax.Hub) window.MathJax.Hub = { Queue: function () {} };
  });
})();
