/* Shows a page's saved ipywidgets without a kernel: the few kinds that this book uses, asleep, in the browser's own
   form elements. The page stays as it was saved, since nobody here could answer. */
(function () {
  "use strict";
  var MIME = "application/vnd.jupyter.widget-";
  var models = {}, count = 0;

  function make(tag, className, text) {
    var node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  var VIEWS = {
    VBoxModel: function (state) {
      var node = make("div", "bw-column");
      state.children.forEach(function (child) { node.append(view(child.replace("IPY_MODEL_", ""))); });
      return node;
    },
    TextareaModel: function (state) {
      var node = make("div", "bw-text"), label = make("label", "", state.description), input = make("textarea");
      input.id = label.htmlFor = "bw-" + count++;
      input.value = state.value;
      input.rows = state.rows || 2;
      node.append(label, input);
      return node;
    },
    HTMLModel: function (state) {
      var node = make("div");
      node.innerHTML = state.value;  // escaped where it was made, in tension_utils.show.widgets
      return node;
    },
    ButtonModel: function (state) {
      var node = make("button", "", state.description);
      node.disabled = true;
      return node;
    },
  };

  function view(id) {
    var draw = models[id] && VIEWS[models[id].model_name];
    if (!draw) throw new Error("widgets.js has no view for " + (models[id] ? models[id].model_name : "a lost widget"));
    return draw(models[id].state);
  }

  function start() {
    document.querySelectorAll("script[type='" + MIME + "state+json']").forEach(function (script) {
      Object.assign(models, JSON.parse(script.textContent).state);
    });
    document.querySelectorAll("script[type='" + MIME + "view+json']").forEach(function (script) {
      var node = make("div", "jupyter-widgets bw-root");
      node.append(view(JSON.parse(script.textContent).model_id));
      script.after(node);
    });
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
