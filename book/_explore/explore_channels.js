// The channel map: heads by layer; one is chosen, and its best connections are drawn.
"use strict";

window.exploreFigures.channels = async (panel, data, say) => {
  const { element, labelled } = explore;
  const NAMES = { Q: "query", K: "key", V: "value" };
  const DASHES = { Q: "solid", K: "dash", V: "dot" };
  const SYMBOLS = { Q: "circle", K: "square", V: "triangle-up" };
  const kinds = Object.keys(data.kinds);
  const head = (h) => `${Math.floor(h / data.heads)}.${h % data.heads}`;
  const role = (h) => (data.roles[h] ? ` (${data.roles[h]})` : "");
  const ROWS = 10;

  // All pairs as objects, by reader and by writer.
  const read = new Map();
  const written = new Map();
  let highest = 0;
  for (const kind of kinds) {
    const { writer, component, reader, score, z, effect } = data.kinds[kind];
    writer.forEach((w, i) => {
      const pair = { kind, writer: w, component: component[i], reader: reader[i] };
      pair.score = score[i];
      pair.z = z[i];
      pair.effect = effect[i];
      for (const [index, at] of [[read, pair.reader], [written, w]]) {
        if (!index.has(at)) index.set(at, []);
        index.get(at).push(pair);
      }
      highest = Math.max(highest, pair.score);
    });
  }
  const measured = kinds.some((kind) => data.kinds[kind].effect.some((e) => e !== null));

  // Controls
  const chooser = element("select");
  for (let layer = 0; layer < data.layers; layer++) {
    const group = element("optgroup", { label: `layer ${layer}` });
    for (let i = 0; i < data.heads; i++) {
      const h = layer * data.heads + i;
      group.append(element("option", { value: h }, head(h) + role(h)));
    }
    chooser.append(group);
  }
  const boxes = kinds.map((kind) =>
    element("input", { type: "checkbox", value: kind, checked: true })
  );
  const least = element("input", {
    type: "range", min: 0, max: (Math.ceil(highest * 100) / 100).toFixed(2), step: 0.01, value: 0,
  });
  const shown = element("output");
  const order = element(
    "select", {}, element("option", { value: "score" }, "score"),
    element("option", { value: "z" }, "standard score"),
    ...(measured ? [element("option", { value: "effect" }, "effect")] : [])
  );
  const map = element("div", {
    class: "explore-plot", tabindex: "0", role: "application",
    "aria-label": "Map of heads, layers from left to right. Arrow keys choose the head.",
  });
  const components = element("div", { class: "explore-plot explore-low" });
  const tables = element("div", { class: "explore-tables" });
  panel.append(
    element(
      "form", { class: "explore-controls" },
      labelled("Head", chooser),
      element(
        "fieldset", {}, element("legend", {}, "Read as"),
        ...kinds.map((kind, i) => {
          const line = { class: `explore-line ${DASHES[kind]}`, style: `color: ${data.colours[kind]}` };
          return labelled(NAMES[kind], boxes[i], element("i", line));
        })
      ),
      labelled("Score at least", least, shown),
      labelled("Tables by", order)
    ),
    map, components, tables
  );
  panel.querySelector("form").addEventListener("submit", (event) => event.preventDefault());

  let chosen = data.open;
  const passes = (pair) =>
    pair.score >= Number(least.value) && boxes.some((box) => box.checked && box.value === pair.kind);
  const number = (x, digits) => (x === null ? "not measured" : explore.number(x, digits));
  const who = (pair) => `${head(pair.writer)}.${pair.component} → ${NAMES[pair.kind]} of ${head(pair.reader)}`;
  const scores = (pair) => [
    `score ${number(pair.score, 3)}`, `standard score ${number(pair.z, 1)}`,
    ...(measured ? [`effect ${number(pair.effect, 3)}`] : []),
  ];
  const describe = (pair) => `${who(pair)}: ${scores(pair).join(", ")}`;
  // A label has lines short enough, and few enough, to lie inside of its plot.
  const narrow = () => panel.clientWidth < 500;
  const label = (pair) => (narrow() ? [who(pair), ...scores(pair)].join("<br>") : describe(pair));

  // An arc from head to head; straight lines within a row would lie on each other.
  const arc = (from, to) => {
    const [x0, y0, x1, y1] = [from, to].flatMap((h) => [Math.floor(h / data.heads), h % data.heads]);
    const bend = Math.min(0.06 * Math.abs(x1 - x0) + 0.2, 1.2);
    return Array.from({ length: 13 }, (_, i) => i / 12).map((t) => [
      x0 + t * (x1 - x0), y0 + t * (y1 - y0) - 4 * bend * t * (1 - t),
    ]);
  };

  const drawMap = (into, out) => {
    const { colours, layout } = explore.layout({ height: 60 + 26 * data.heads, hovermode: "closest" });
    const place = (h) => [Math.floor(h / data.heads), h % data.heads];
    const others = new Map();
    for (const [pairs, end] of [[into, "writer"], [out, "reader"]]) {
      for (const pair of pairs) {
        if (!others.has(pair[end])) others.set(pair[end], []);
        others.get(pair[end]).push(pair);
      }
    }
    const everyone = Array.from({ length: data.layers * data.heads }, (_, h) => h).filter(
      (h) => h !== chosen && !others.has(h) // these are drawn, and speak, for themselves
    );
    let top = -0.7; // where the highest arc ends
    const traces = kinds.map((kind) => {
      const points = [...into, ...out]
        .filter((pair) => pair.kind === kind)
        .flatMap((pair) => [...arc(pair.writer, pair.reader), [null, null]]);
      top = Math.min(top, ...points.map((p) => p[1] ?? 0));
      return {
        x: points.map((p) => p[0]), y: points.map((p) => p[1]), mode: "lines", hoverinfo: "skip",
        line: { color: data.colours[kind], width: 1.6, dash: DASHES[kind] }, opacity: 0.75,
      };
    });
    traces.push({
      x: everyone.map((h) => place(h)[0]), y: everyone.map((h) => place(h)[1]), customdata: everyone,
      mode: "markers", hoverinfo: "text", text: everyone.map((h) => head(h) + role(h)),
      marker: {
        color: everyone.map((h) => (data.roles[h] ? colours.text : colours.quiet)),
        symbol: everyone.map((h) => (data.roles[h] ? "diamond" : "circle")),
        size: everyone.map((h) => (data.roles[h] ? 8 : 5)), line: { width: 0 },
      },
    });
    const connected = [...others.keys()];
    const lines = (h) => {
      const pairs = [...others.get(h)].sort((a, b) => b.score - a.score);
      const most = narrow() ? 2 : 5;
      const rest = pairs.length > most ? [`and ${pairs.length - most} more`] : [];
      return [`<b>${head(h)}</b>${role(h)}`, ...pairs.slice(0, most).map(label), ...rest].join("<br>");
    };
    traces.push({
      x: connected.map((h) => place(h)[0]), y: connected.map((h) => place(h)[1]),
      customdata: connected, mode: "markers", hoverinfo: "text", text: connected.map(lines),
      marker: {
        size: 9, line: { color: colours.text, width: 1 },
        color: connected.map((h) => data.colours[others.get(h)[0].kind]),
        symbol: connected.map((h) => (data.roles[h] ? "diamond" : "circle")),
      },
    });
    const [x, y] = place(chosen);
    traces.push({
      x: [x], y: [y], mode: "markers", hoverinfo: "text", text: [`<b>${head(chosen)}</b>${role(chosen)}: chosen`],
      marker: { size: 17, symbol: "circle-open-dot", color: colours.text, line: { width: 2.5 } },
    });
    layout.margin = { l: 40, r: 8, t: 8, b: 40 };
    layout.xaxis = { ...colours.axis, title: { text: "layer" }, showgrid: false, zeroline: false, range: [-0.8, data.layers - 0.2] };
    layout.yaxis = { ...colours.axis, title: { text: "head" }, showgrid: false, zeroline: false, range: [data.heads - 0.3, top - 0.3], dtick: data.heads > 12 ? 4 : 2 };
    return Plotly.react(map, traces, layout, explore.options);
  };

  const drawComponents = (out) => {
    const { colours, layout } = explore.layout({ height: 190, hovermode: "closest" });
    const best = new Map();
    for (const pair of out) {
      const key = `${pair.kind} ${pair.component}`;
      if (!best.has(key) || best.get(key).score < pair.score) best.set(key, pair);
    }
    const traces = kinds.map((kind) => {
      const pairs = [...best.values()].filter((pair) => pair.kind === kind);
      return {
        x: pairs.map((p) => p.component), y: pairs.map((p) => p.score), text: pairs.map(label),
        customdata: pairs.map((p) => p.reader), hoverinfo: "text", mode: "markers",
        marker: { color: data.colours[kind], symbol: SYMBOLS[kind], size: 8, line: { color: colours.text, width: 0.7 } },
      };
    });
    layout.margin = { l: 56, r: 8, t: 26, b: 40 };
    layout.title = { text: `components of ${head(chosen)}, most open reader`, font: { size: 13 }, x: 0, xref: "paper", y: 0.97 };
    layout.xaxis = { ...colours.axis, title: { text: "component" }, range: [-1, data.rank], zeroline: false, showgrid: false };
    layout.yaxis = { ...colours.axis, title: { text: "score" }, rangemode: "tozero", nticks: 4 };
    layout.shapes = [{
      type: "line", x0: 0, x1: 1, xref: "paper", y0: data.random_level, y1: data.random_level,
      line: { color: colours.text, dash: "dot", width: 1 },
    }];
    return Plotly.react(components, traces, layout, explore.options);
  };

  const choose = (h) => {
    chosen = Math.min(Math.max(h, 0), data.layers * data.heads - 1);
    return draw();
  };

  const drawTables = (into, out) => {
    const link = (h) => {
      const button = element("button", { type: "button", "aria-label": `choose head ${head(h)}` }, head(h));
      button.addEventListener("click", async () => {
        await choose(h);
        chooser.focus();
      });
      return button;
    };
    const rows = (pairs, end) =>
      [...pairs]
        .sort((a, b) => (b[order.value] ?? -1) - (a[order.value] ?? -1))
        .slice(0, ROWS)
        .map((pair) => [
          `${head(pair.writer)}.${pair.component}`, link(pair[end]), NAMES[pair.kind],
          number(pair.score, 3), number(pair.z, 1), ...(measured ? [number(pair.effect, 3)] : []),
        ]);
    const last = ["as", "score", "standard score", ...(measured ? ["effect"] : [])];
    tables.replaceChildren(
      explore.table(`What ${head(chosen)} reads`, ["component", "of head", ...last], rows(into, "writer")),
      explore.table(`Who reads what ${head(chosen)} writes`, ["component", "reader", ...last], rows(out, "reader"))
    );
  };

  const draw = async () => {
    chooser.value = chosen;
    shown.textContent = Number(least.value).toFixed(2);
    const into = (read.get(chosen) || []).filter(passes);
    const out = (written.get(chosen) || []).filter(passes);
    const top = (pairs) => pairs.reduce((a, b) => (a.score >= b.score ? a : b));
    drawTables(into, out);
    await Promise.all([drawMap(into, out), drawComponents(out)]);
    say(
      `Head ${head(chosen)}${role(chosen)}: ${into.length} components shown that it reads` +
      (into.length ? ` (highest ${describe(top(into))})` : "") +
      `, ${out.length} readings of its own` + (out.length ? ` (highest ${describe(top(out))})` : "") + "."
    );
  };

  await draw();
  for (const control of [...boxes, least, order]) control.addEventListener("input", draw);
  chooser.addEventListener("change", () => choose(Number(chooser.value)));
  for (const plot of [map, components]) {
    plot.on("plotly_click", (event) => {
      const at = event.points[0].customdata;
      if (at !== undefined) choose(at);
    });
  }
  const steps = { ArrowLeft: -data.heads, ArrowRight: data.heads, ArrowUp: -1, ArrowDown: 1 };
  map.addEventListener("keydown", (event) => {
    if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation(); // the theme turns pages with these keys
    const next = chosen + steps[event.key];
    const sameLayer = Math.floor(next / data.heads) === Math.floor(chosen / data.heads);
    if (next >= 0 && next < data.layers * data.heads && (Math.abs(steps[event.key]) > 1 || sameLayer)) choose(next);
  });
  explore.onTheme(draw);
  let before = narrow();
  window.addEventListener("resize", () => {
    if (narrow() === before) return;
    before = !before;
    draw();
  });
};
