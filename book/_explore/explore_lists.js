// The index cube: three inhibition coordinates, and the item of the list that is attended to.
"use strict";

window.exploreFigures.lists = async (panel, data, say) => {
  const { element, labelled } = explore;
  const lengths = Object.keys(data.lengths).map(Number).sort((a, b) => a - b);
  const AXES = ["x", "y", "z"];
  const percent = (x) => `${Math.round(100 * x)}%`;
  const TURN = Math.PI / 12;

  // The largest coordinate along each axis, so that the cube is one and the same for all lengths.
  const reach = AXES.map((axis) =>
    1.08 * Math.max(...lengths.flatMap((n) => Object.values(data.lengths[n]).flatMap((p) => p[axis].map(Math.abs))))
  );

  // Controls
  const length = element("input", { type: "range", min: 0, max: lengths.length - 1, step: 1 });
  const shown = element("output");
  const boxes = {
    set: element("input", { type: "checkbox", checked: true }),
    itself: element("input", { type: "checkbox", checked: true }),
  };
  const cube = element("div", {
    class: "explore-plot explore-cube", tabindex: "0", role: "application",
    "aria-label": "The cube. Arrow keys turn it.",
  });
  const turns = { "turn left": [-1, 0], "turn right": [1, 0], "turn up": [0, 1], "turn down": [0, -1], "as at first": null };
  const key = element("ul", { class: "explore-key" });
  const tables = element("div", { class: "explore-tables" });
  panel.append(
    element(
      "form", { class: "explore-controls" },
      labelled("Items in the list", length, shown),
      element(
        "fieldset", {}, element("legend", {}, "Show"),
        labelled("coordinates set by hand (squares)", boxes.set),
        labelled("nothing set (circles)", boxes.itself)
      ),
      element(
        "div", { role: "group", "aria-label": "Turn the cube" },
        ...Object.keys(turns).map((name) => element("button", { type: "button", "data-turn": name }, name))
      )
    ),
    key, cube, tables
  );
  panel.querySelector("form").addEventListener("submit", (event) => event.preventDefault());

  // The eye on a sphere: angle about the vertical, height above the horizon; so far that the axes'
  // letters, which do not shrink with the cube, are not cut off.
  const start = { turn: 0.9, rise: 0.35, far: Math.max(2.3, 1050 / panel.clientWidth) };
  let eye = { ...start };
  const camera = () => ({
    eye: {
      x: eye.far * Math.cos(eye.rise) * Math.cos(eye.turn),
      y: eye.far * Math.cos(eye.rise) * Math.sin(eye.turn),
      z: eye.far * Math.sin(eye.rise),
    },
    up: { x: 0, y: 0, z: 1 },
    center: { x: 0, y: 0, z: -0.12 },
  });
  const turn = (step) => {
    if (step === null) eye = { ...start };
    else {
      eye.turn += step[0] * TURN;
      eye.rise = Math.min(Math.max(eye.rise + step[1] * TURN, -1.5), 1.5);
    }
    cube.dataset.turn = eye.turn.toFixed(3);
    if (cube.layout) Plotly.relayout(cube, { "scene.camera": camera() });
  };

  // Colours in order of place: as many of the scale as the list has items.
  const colour = (n, item) => data.colours[Math.round(((item - 1) / Math.max(1, n - 1)) * (data.colours.length - 1))];

  const canvas = document.createElement("canvas");
  const solid = Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));

  const drawCube = (n, points) => {
    const { colours, layout } = explore.layout({ height: Math.min(460, Math.max(320, panel.clientWidth)) });
    const at = (k) =>
      data.names.map((name, i) => `${name}: ${explore.number(points[k.what][AXES[i]][k.i], 1)}`).join("<br>");
    const traces = [];
    const trace = (what, more) => {
      const p = points[what];
      traces.push({ type: "scatter3d", mode: "markers", hoverinfo: "text", x: p.x, y: p.y, z: p.z, ...more });
    };
    if (points.set && boxes.set.checked) {
      const p = points.set;
      trace("set", {
        mode: "markers+text", text: p.chosen, textfont: { color: colours.text, size: 15 },
        hovertext: p.item.map((item, i) =>
          `item ${item} in ${percent(p.share[i])} of prompts<br>${at({ what: "set", i })}` +
          (p.chosen[i] ? `<br>chosen for item ${p.chosen[i]}` : "")),
        marker: {
          symbol: "square", opacity: 0.85, color: p.item.map((item) => colour(n, item)),
          size: p.share.map((share) => 3 + 7 * share), line: { color: colours.text, width: 0.5 },
        },
      });
    }
    if (points.itself && boxes.itself.checked) {
      const p = points.itself;
      trace("itself", {
        hovertext: p.item.map((item, i) =>
          `attended to: item ${item}; left out: item ${p.left_out[i]}<br>${at({ what: "itself", i })}`),
        marker: {
          symbol: "circle", opacity: 1, color: p.item.map((item) => colour(n, item)), size: 5,
          line: { color: colours.text, width: 1 },
        },
      });
    }
    const axis = (i) => ({
      ...colours.axis, title: { text: data.names[i] }, range: [-reach[i], reach[i]], showspikes: false, nticks: 5,
    });
    layout.margin = { l: 0, r: 0, t: 0, b: 0 };
    layout.scene = { xaxis: axis(0), yaxis: axis(1), zaxis: axis(2), aspectmode: "cube", dragmode: "turntable", camera: camera() };
    delete layout.dragmode;
    return Plotly.react(cube, traces, layout, explore.options);
  };

  const drawTable = (n, points) => {
    const { set, itself } = points;
    const rows = Array.from({ length: n }, (_, i) => i + 1).map((item) => {
      const row = [`item ${item}`];
      if (set) {
        const best = set.chosen.findIndex((text) => text.split(", ").includes(String(item)));
        const place = AXES.map((axis) => explore.number(set[axis][best], 0)).join(", ");
        const there = set.item[best] === item ? percent(set.share[best]) : `item ${set.item[best]} more often`;
        row.push(`${set.item.filter((x) => x === item).length} of ${set.item.length}`, place, there);
      }
      if (itself) {
        const asked = itself.item.filter((_, i) => itself.left_out[i] === item);
        row.push(`${asked.filter((x) => x === item).length} of ${asked.length}`);
      }
      return row;
    });
    const head = ["attended to most"];
    if (set) head.push("points of the grid", "best point", "prompts there");
    if (itself) head.push("nothing set, when it is left out");
    return explore.table(`Lists of ${n} items`, head, rows);
  };

  const draw = async () => {
    const n = lengths[Number(length.value)];
    const points = data.lengths[n];
    shown.textContent = n;
    length.setAttribute("aria-valuetext", `${n} items`);
    key.replaceChildren(
      ...Array.from({ length: n }, (_, i) =>
        element("li", {}, element("i", { style: `background: ${colour(n, i + 1)}` }), `item ${i + 1}`))
    );
    tables.replaceChildren(drawTable(n, points));
    cube.dataset.length = n;
    const grid = points.set
      ? `${points.set.item.length} points of the grid; the chosen ones select ${percent(data.reached[n])} of ` +
        `the places on prompts that they were not chosen on (a blind choice: ${percent(1 / n)}).`
      : "nothing was set at this length.";
    const right = points.itself
      ? ` With nothing set, the item left out is attended to most in ${percent(
          points.itself.item.filter((x, i) => x === points.itself.left_out[i]).length / points.itself.item.length
        )} of ${points.itself.item.length} prompts.`
      : "";
    say(`Lists of ${n} items: ${grid}${right}` + (solid ? "" : " This browser draws no solid figures (WebGL is off): the table has the numbers."));
    if (solid) await drawCube(n, points);
  };

  // The longest list that was searched.
  const searched = lengths.filter((n) => data.lengths[n].set);
  length.value = Math.max(0, lengths.indexOf(Math.max(...searched)));
  cube.hidden = !solid;
  await draw();
  for (const control of [length, ...Object.values(boxes)]) control.addEventListener("input", draw);
  for (const button of panel.querySelectorAll("[data-turn]")) {
    button.addEventListener("click", () => turn(turns[button.dataset.turn]));
  }
  const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  cube.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation(); // the theme turns pages with these keys
    turn(keys[event.key]);
  });
  if (solid) {
    cube.on("plotly_relayout", (event) => {
      const seen = event["scene.camera"]?.eye;
      if (!seen) return;
      const far = Math.hypot(seen.x, seen.y, seen.z);
      eye = { turn: Math.atan2(seen.y, seen.x), rise: Math.asin(seen.z / far), far };
      cube.dataset.turn = eye.turn.toFixed(3);
    });
    explore.onTheme(draw);
  }
};
