// What a page of figures does by itself: it follows the reader's theme, and redraws the window of a
// Gantt chart from all of its bars, which the chart carries (bars.py, packed_bars).

const SETTINGS = JSON.parse(document.getElementById("settings").textContent);
const charts = [...document.querySelectorAll(".js-plotly-plot")];

const dark = window.matchMedia("(prefers-color-scheme: dark)");

function followTheme() {
  const theme = dark.matches ? SETTINGS.dark : SETTINGS.light;
  for (const chart of charts) {
    Plotly.relayout(chart, {paper_bgcolor: theme.paper, "font.color": theme.text});
  }
}

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

// The numbers of the bars that reach into a window, and the window: cut off where it has too many.
function barsWithin(bars, from, to) {
  const inside = [];
  bars.left.forEach((left, bar) => {
    const end = left + bars.width[bar];
    if (left < to && (end > from || left >= from)) inside.push(bar);
  });
  if (inside.length <= SETTINGS.maxBars) return {inside, from, to};
  const starts = inside.map((bar) => bars.left[bar]).sort((a, b) => a - b);
  const end = starts[SETTINGS.maxBars];
  return {inside: inside.filter((bar) => bars.left[bar] < end), from, to: end};
}

// Between bars of a track that touch each other, from the middle of one to that of the next.
function joints(bars, inside, kind, height) {
  const x = [], y = [];
  const byTrack = [...inside].sort((a, b) => bars.y[a] - bars.y[b] || bars.left[a] - bars.left[b]);
  byTrack.slice(0, -1).forEach((bar, place) => {
    const next = byTrack[place + 1];
    const end = bars.left[bar] + bars.width[bar];
    if (bars.kind[bar] !== kind || bars.y[bar] !== bars.y[next]) return;
    if (bars.left[next] - end > 1e-9 * end) return;
    const left = bars.left[bar] + bars.width[bar] / 2;
    const right = bars.left[next] + bars.width[next] / 2;
    const top = bars.y[bar] - height / 2, bottom = bars.y[bar] + height / 2;
    x.push(left, right, right, left, null);
    y.push(top, top, bottom, bottom, null);
  });
  return {x, y};
}

// A colour (#rrggbb), darkened.
function shaded(color, shade) {
  const parts = [1, 3, 5].map((at) => Math.round(shade * parseInt(color.slice(at, at + 2), 16)));
  return `rgb(${parts})`;
}

// Of a task such as A[0.1]: layer.micro-batch.chunk.
function numbers(task) {
  return task.slice(task.indexOf("[") + 1, -1);
}

function windowTraces(chart, bars, inside, length) {
  const numbered = inside.length <= SETTINGS.maxNumbers;
  const least = numbered ? SETTINGS.numberShare * length : Infinity;
  return chart.data.map((trace) => {
    if (trace.xaxis === "x2") return trace;
    const kind = trace.legendgroup;
    if (trace.type === "scatter") {
      const fillcolor = shaded(SETTINGS.colors[kind], numbered ? SETTINGS.seamShade : 1);
      return {...trace, ...joints(bars, inside, kind, SETTINGS.barHeight), fillcolor};
    }
    const own = inside.filter((bar) => bars.kind[bar] === kind);
    const column = (name) => own.map((bar) => bars[name][bar]);
    const customdata = own.map((bar) => {
      const end = bars.left[bar] + bars.width[bar];
      return [bars.task[bar], bars.rank[bar], bars.start[bar], end, end - bars.start[bar]];
    });
    const text = own.map((bar) => (bars.width[bar] >= least ? numbers(bars.task[bar]) : ""));
    const drawn = {base: column("left"), x: column("width"), y: column("y"), customdata, text};
    return {...trace, ...drawn};
  });
}

async function followWindow(chart) {
  const bars = await unpacked(chart.layout.meta.bars);
  const first = [...chart.layout.xaxis.range], whole = [...chart.layout.xaxis2.range];
  let shown = first;
  const show = (range) => {
    const {inside, from, to} = barsWithin(bars, ...range);
    shown = [from, to];
    const shapes = chart.layout.shapes.map(
      (shape) => (shape.name === "window" ? {...shape, x0: from, x1: to} : shape));
    const xaxis = {...chart.layout.xaxis, range: [...shown], autorange: false};
    const xaxis2 = {...chart.layout.xaxis2, range: [...whole], autorange: false};
    const layout = {...chart.layout, shapes, xaxis, xaxis2};
    Plotly.react(chart, windowTraces(chart, bars, inside, to - from), layout, chart._context);
  };
  chart.on("plotly_relayout", (change) => {
    if ("xaxis.autorange" in change || "xaxis2.autorange" in change) return show(first);
    for (const axis of ["xaxis2", "xaxis"]) {  // a stretch of the overview is a window, too
      const range = change[`${axis}.range`] ?? [change[`${axis}.range[0]`], change[`${axis}.range[1]`]];
      if (range[0] === undefined) continue;
      if (String(range) !== String(shown)) show(range);
      return;
    }
  });
}

dark.addEventListener("change", followTheme);
followTheme();
charts.filter((chart) => chart.layout.meta?.bars).forEach(followWindow);
