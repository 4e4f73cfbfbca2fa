/* Shows a page's saved ipywidgets without a kernel: the few kinds that this book uses, their links included, in a few
   kilobytes and with the browser's own radio buttons and sliders. A page with any other kind gets the complete manager
   of the ipywidgets project instead, several megabytes, from the files that the script's tag names in data-manager. */
(function () {
  "use strict";
  var MIME = "application/vnd.jupyter.widget-";
  var SCRIPT = document.currentScript;
  var models = {}, listeners = {}, count = 0;

  function make(tag, className, text) {
    var node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function idOf(reference) { return reference.replace("IPY_MODEL_", ""); }

  function set(id, name, value) {
    if (models[id].state[name] === value) return;
    models[id].state[name] = value;
    (listeners[id + "." + name] || []).forEach(function (call) { call(value); });
  }

  function listen(id, name, call) {
    (listeners[id + "." + name] = listeners[id + "." + name] || []).push(call);
  }

  function follow(from, to) {
    var id = idOf(from[0]), other = idOf(to[0]);
    listen(id, from[1], function (value) { set(other, to[1], value); });
  }

  function box(className) {
    return function (id, state) {
      var node = make("div", className);
      state.children.forEach(function (child) { node.append(view(idOf(child))); });
      return node;
    };
  }

  /* Only the chosen child is made; the others when they are chosen for the first time. */
  function stack(id, state) {
    var node = make("div", "bw-stack"), made = {};
    function show(index) {
      Object.keys(made).forEach(function (key) { made[key].hidden = key !== String(index); });
      if (index !== null && !made[index]) node.append(made[index] = view(idOf(state.children[index])));
    }
    listen(id, "selected_index", show);
    show(state.selected_index);
    return node;
  }

  function toggles(id, state) {
    var node = make("fieldset", "bw-toggles"), name = "bw-" + count++;
    node.append(make("legend", "", state.description));
    state._options_labels.forEach(function (text, index) {
      var label = make("label"), input = make("input");
      input.type = "radio";
      input.name = name;
      input.checked = index === state.index;
      input.addEventListener("change", function () { set(id, "index", index); });
      listen(id, "index", function (value) { input.checked = value === index; });
      label.append(input, make("span", "", text));
      node.append(label);
    });
    return node;
  }

  function slider(id, state) {
    var node = make("div", "bw-slider"), label = make("label", "", state.description);
    var input = make("input"), output = make("output"), last = state._options_labels.length - 1;
    input.type = "range";
    input.id = "bw-" + count++;
    label.htmlFor = input.id;
    output.htmlFor = input.id;
    input.min = 0;
    input.max = last;
    function show(index) {
      input.value = index;
      output.textContent = state._options_labels[index];
      input.setAttribute("aria-valuetext", state._options_labels[index]);
    }
    input.addEventListener("input", function () { set(id, "index", Number(input.value)); });
    listen(id, "index", show);
    show(state.index);
    node.append(label, input, output);
    return node;
  }

  function textarea(id, state) {
    var node = make("div", "bw-text"), label = make("label", "", state.description), input = make("textarea");
    input.id = label.htmlFor = "bw-" + count++;
    input.value = state.value;
    input.rows = state.rows || 2;
    node.append(label, input);
    return node;
  }

  var VIEWS = {
    VBoxModel: box("bw-column"),
    HBoxModel: box("bw-row"),
    StackModel: stack,
    ToggleButtonsModel: toggles,
    SelectionSliderModel: slider,
    TextareaModel: textarea,
    LabelModel: function (id, state) { return make("div", "", state.value); },
    HTMLModel: function (id, state) {
      var node = make("div");
      node.innerHTML = state.value;  // escaped where it was made, in tension_utils.widgets
      return node;
    },
    ButtonModel: function (id, state) {
      var node = make("button", "", state.description);
      node.disabled = true;  // nobody here could answer
      return node;
    },
  };

  function isKnown(id) {
    var model = models[id];
    return model && VIEWS[model.model_name] && (model.state.children || []).map(idOf).every(isKnown);
  }

  function view(id) { return VIEWS[models[id].model_name](id, models[id].state); }

  function load(sources) {
    if (!sources.length) return;
    var script = make("script");
    script.src = new URL(sources[0], SCRIPT.src).href;
    if (sources.length === 1) script.dataset.jupyterWidgetsCdn = new URL("../vendor/npm/", SCRIPT.src).href;
    script.onload = function () { load(sources.slice(1)); };
    document.head.append(script);
  }

  function start() {
    document.querySelectorAll("script[type='" + MIME + "state+json']").forEach(function (script) {
      Object.assign(models, JSON.parse(script.textContent).state);
    });
    var views = Array.from(document.querySelectorAll("script[type='" + MIME + "view+json']"));
    var roots = views.map(function (script) { return JSON.parse(script.textContent).model_id; });
    if (!roots.every(isKnown)) {
      load(SCRIPT.dataset.manager.split(" "));
      return;
    }
    Object.keys(models).forEach(function (id) {
      var state = models[id].state, kind = models[id].model_name;
      if (kind === "LinkModel" || kind === "DirectionalLinkModel") follow(state.source, state.target);
      if (kind === "LinkModel") follow(state.target, state.source);
    });
    views.forEach(function (script, index) {
      var node = make("div", "jupyter-widgets bw-root");
      node.append(view(roots[index]));
      var outermost = node.querySelector(".bw-stack");
      if (outermost) outermost.setAttribute("aria-live", "polite");
      script.after(node);
    });
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
