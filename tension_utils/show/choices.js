/* A drawing whose state is chosen from lists. Only choices that lead to a state are offered: each list holds what goes
   with the lists before it. States, words and numbers come from the JSON beside this script; texts are set as text. */
(function () {
  "use strict";
  var SVG = "http://www.w3.org/2000/svg", count = 0;

  function make(tag, attributes, text) {
    var node = document.createElement(tag);
    Object.keys(attributes || {}).forEach(function (name) { node.setAttribute(name, attributes[name]); });
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function shape(parent, tag, attributes, text) {
    var node = document.createElementNS(SVG, tag);
    Object.keys(attributes).forEach(function (name) { node.setAttribute(name, attributes[name]); });
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  }

  function canvas(width, height, label) {
    var box = { width: width, height: height, viewBox: "0 0 " + width + " " + height, role: "img", "aria-label": label };
    return shape(make("div"), "svg", box);
  }

  /* The smallest of 1, 2, 5, 10, 20, ... that holds a value: axes change rarely, and then by a step one can see. */
  function step(value) {
    var power = Math.pow(10, Math.floor(Math.log10(value || 1)));
    return [1, 2, 5, 10].map(function (factor) { return factor * power; }).find(function (each) {
      return each >= value * 0.999999;
    });
  }

  function limits(values) {
    var low = Math.min.apply(null, values), high = Math.max.apply(null, values), reach = step(Math.max(-low, high));
    return [low < -reach / 4 ? -reach : -reach / 4, high > reach / 4 ? reach : reach / 4];
  }

  function axis(svg, x, ends, y, title) {
    var gap = step(Math.max(-ends[0], ends[1])) / (ends[1] - ends[0] > 1.3 * Math.max(-ends[0], ends[1]) ? 2 : 4);
    shape(svg, "line", { x1: x(ends[0]), x2: x(ends[1]), y1: y, y2: y, class: "line" });
    for (var i = Math.ceil(ends[0] / gap); i * gap <= ends[1] * 1.000001; i++) {
      var at = x(i * gap), text = String(Number((i * gap).toPrecision(3)));
      shape(svg, "line", { x1: at, x2: at, y1: y, y2: y + 5, class: "line" });
      shape(svg, "text", { x: at, y: y + 19, "text-anchor": "middle" }, (i > 0 ? "+" : "") + text);
    }
    shape(svg, "text", { x: (x(ends[0]) + x(ends[1])) / 2, y: y + 38, "text-anchor": "middle" }, title);
  }

  /* Dots of one value next to each other become a pile. */
  function piles(values, x, size) {
    var heights = {};
    return values.slice().sort(function (a, b) { return a - b; }).map(function (value) {
      var column = Math.round(x(value) / size);
      heights[column] = (heights[column] || 0) + 1;
      return { at: x(value), level: heights[column] - 1 };
    });
  }

  var DRAWINGS = {
    /* random: changes without each random set; set: change, low, high; seeds: changes of single seeds. */
    removal: function (state, data, width) {
      var height = 206, base = 120, top = 30, side = 28;
      var ends = limits(state.random.concat(state.set, state.seeds));
      var x = function (value) { return side + (value - ends[0]) / (ends[1] - ends[0]) * (width - 2 * side); };
      var svg = canvas(width, height, "Dots: random sets. Line with a band: the chosen set. The sentence below has the numbers.");
      var color = state.color;
      shape(svg, "rect", { x: x(state.set[1]), width: Math.max(1, x(state.set[2]) - x(state.set[1])), y: top, height: base + 32 - top, fill: color, opacity: 0.22 });
      shape(svg, "line", { x1: x(0), x2: x(0), y1: top, y2: base + 32, class: "zero" });
      var dots = piles(state.random, x, 11);
      var room = Math.min(11, (base - top - 12) / (1 + Math.max.apply(null, dots.map(function (dot) { return dot.level; }))));
      dots.forEach(function (dot) { shape(svg, "circle", { cx: dot.at, cy: base - 7 - room * dot.level, r: 5, class: "random" }); });
      shape(svg, "line", { x1: side, x2: width - side, y1: base, y2: base, class: "faint" });
      state.seeds.forEach(function (value) { shape(svg, "circle", { cx: x(value), cy: base + 16, r: 5, stroke: color, class: "seed" }); });
      shape(svg, "line", { x1: x(state.set[0]), x2: x(state.set[0]), y1: top, y2: base + 32, stroke: color, "stroke-width": 3 });
      var anchor = x(state.set[0]) > width / 2 ? "end" : "start";
      shape(svg, "text", { x: x(state.set[0]), y: 20, "text-anchor": anchor, class: "strong" }, state.name);
      axis(svg, x, ends, base + 32, state.unit);
      return svg;
    },
    /* data.bars[state.bars]: name, share, low, high, what it is a share of, whether the claim is true there. */
    worlds: function (state, data, width) {
      var bars = data.bars[state.bars], label = width < 500 ? 116 : 150, value = 96, y = 0;
      var most = Math.max.apply(null, data.bars.map(function (each) { return each.length; }));
      var svg = canvas(width, 26 * most + 2 * 30, "A bar per kind of world: how often the test says supported. The table below has the numbers.");
      var x = function (share) { return label + share * (width - label - value); };
      [true, false].forEach(function (truth) {
        var title = truth ? "Claim true there: supported is right (power)" : "Claim false there: supported is wrong";
        var own = bars.map(function (bar, index) { return [bar, index]; }).filter(function (each) { return each[0][5] === truth; });
        if (!own.length) return;
        shape(svg, "text", { x: 0, y: y + 20, class: "strong" }, title);
        y += 30;
        own.forEach(function (each) {
          var bar = each[0], isMarked = each[1] === state.marked, middle = y + 12;
          shape(svg, "text", { x: 0, y: middle + 5, class: isMarked ? "strong" : "" }, (isMarked ? "▸ " : "") + bar[0]);
          shape(svg, "rect", { x: x(0), width: x(1) - x(0), y: y + 3, height: 18, class: "ground" });
          shape(svg, "rect", { x: x(0), width: x(bar[1]) - x(0), y: y + 3, height: 18, class: truth ? "right" : "wrong", opacity: isMarked ? 1 : 0.5 });
          shape(svg, "line", { x1: x(bar[2]), x2: x(bar[3]), y1: middle, y2: middle, class: "line" });
          shape(svg, "text", { x: width, y: middle + 5, "text-anchor": "end", class: isMarked ? "strong" : "" }, Math.round(100 * bar[1]) + " % of " + bar[4]);
          y += 26;
        });
      });
      return svg;
    },
  };

  function start(root) {
    var data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    var form = make("div", { class: "lists" }), picture = make("div", { class: "picture" });
    var words = make("div", { class: "words" }), unseen = make("p", { "aria-hidden": "true" }), said = make("p", { "aria-live": "polite" });
    var at = data.states[data.start].at.slice(), state, rows = root.querySelectorAll("tbody tr");
    unseen.textContent = data.states.reduce(function (longest, each) { return each.say.length > longest.length ? each.say : longest; }, "");
    words.append(unseen, said);
    var lists = data.controls.map(function (control, index) {
      var list = make("select", { id: "choice-" + root.dataset.number + "-" + index });
      var longest = Math.max.apply(null, control.options.map(function (name) { return name.length; }));
      var box = make("div", { class: longest > 50 ? "wide" : longest > 14 ? "long" : "" });
      box.append(make("label", { for: list.id }, control.name), list);
      form.append(box);
      list.addEventListener("change", function () { at[index] = Number(list.value); settle(index); });
      return list;
    });

    /* States that agree with the first n choices. */
    function fitting(n) {
      return data.states.filter(function (each) {
        return each.at.slice(0, n).every(function (option, index) { return option === at[index]; });
      });
    }

    /* Later choices stay if they can, else the first one that can takes their place. */
    function settle(changed) {
      for (var i = changed + 1; i < at.length; i++) {
        var open = fitting(i).map(function (each) { return each.at[i]; });
        if (open.indexOf(at[i]) < 0) at[i] = open[0];
      }
      lists.forEach(function (list, index) {
        var open = new Set(fitting(index).map(function (each) { return each.at[index]; }));
        list.replaceChildren.apply(list, data.controls[index].options.map(function (name, option) {
          return open.has(option) ? new Option(name, option, false, option === at[index]) : null;
        }).filter(Boolean));
      });
      state = fitting(at.length)[0];
      said.textContent = state.say;
      data.states.forEach(function (each, index) {
        var others = each.at.filter(function (option, list) { return option !== at[list]; }).length;
        rows[index].hidden = others > 1;
        rows[index].setAttribute("aria-current", others === 0);
      });
      draw();
    }

    function draw() {
      var width = Math.max(240, Math.floor(picture.clientWidth || 640));
      picture.replaceChildren(DRAWINGS[data.drawing](state, data, width));
    }

    root.querySelector("summary").textContent = "In numbers, with what one other choice would show";
    root.querySelector(".live").replaceChildren(form, picture, words);
    settle(-1);
    var drawn = picture.clientWidth;
    new ResizeObserver(function () {
      if (picture.clientWidth === drawn) return;
      drawn = picture.clientWidth;
      draw();
    }).observe(picture);
  }

  document.querySelectorAll(".choices:not([data-number])").forEach(function (root) {
    root.dataset.number = document.querySelectorAll(".choices[data-number]").length;
    start(root);
  });
})();
