// Lines over the last two minutes, on a canvas.

const POINTS = 120;
const SVG = 'http://www.w3.org/2000/svg';

/** The next round value whose quarters are round; of bytes the next power of two. */
function ceiling(value, isBytes) {
  if (isBytes) return 2 ** Math.ceil(Math.log2(value));
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((it) => it * power).find((it) => it >= value * 0.999) ?? value;
}

export class Plot {
  /**
   * `show` writes a value with its unit, `name` the name of a line; the axis reaches `least` at least
   * and `most` at most.
   */
  constructor(canvas, { show, name = () => '', least = 1, most = Infinity, isBytes = false }) {
    Object.assign(this, { canvas, show, name, least, most, isBytes, lines: [] });
    this.legend = canvas.parentElement.querySelector('.legend');
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.draw());
  }

  clear() {
    this.lines = [];
    this.draw();
  }

  /** Adds the values of one second; null where there is none. */
  add(values) {
    values.forEach((value, at) => {
      this.lines[at] ??= [];
      this.lines[at].push(value ?? null);
      if (this.lines[at].length > POINTS) this.lines[at].shift();
    });
    this.lines.length = values.length;
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (width === 0) return;
    const scale = devicePixelRatio || 1;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = canvas.getContext('2d');
    const style = getComputedStyle(canvas);
    const color = (name) => style.getPropertyValue(name).trim();
    pen.scale(scale, scale);
    pen.font = `11px ${style.fontFamily}`;
    pen.textBaseline = 'middle';
    const peak = Math.max(this.least, ...this.lines.flat().map((it) => it ?? 0));
    const top = Math.min(this.most, ceiling(peak, this.isBytes));
    const marks = [0, 1, 2, 3, 4].map((it) => (top * it) / 4).filter((_, at) => at % 2 === 0 || height > 130);
    const left = Math.ceil(Math.max(...marks.map((it) => pen.measureText(this.show(it)).width))) + 10;
    const [low, high] = [height - 20, 8];
    const y = (value) => low - (Math.min(value, top) / top) * (low - high);
    const x = (at, length) => width - 2 - ((length - 1 - at) * (width - 2 - left)) / (POINTS - 1);
    pen.fillStyle = color('--quiet');
    pen.strokeStyle = color('--line');
    pen.lineWidth = 1;
    for (const mark of marks) {
      pen.textAlign = 'right';
      pen.fillText(this.show(mark), left - 8, y(mark));
      pen.beginPath();
      pen.moveTo(left, Math.round(y(mark)) + 0.5);
      pen.lineTo(width, Math.round(y(mark)) + 0.5);
      pen.stroke();
    }
    for (const [seconds, align] of [[120, 'left'], [60, 'center'], [0, 'right']]) {
      pen.textAlign = align;
      const text = seconds === 0 ? '0 s' : `−${seconds} s`;
      pen.fillText(text, x(POINTS - 1 - Math.min(seconds, POINTS - 1), POINTS), height - 7);
    }
    pen.lineWidth = this.lines.length > 8 ? 1 : 1.75;
    pen.lineJoin = 'round';
    this.lines.forEach((line, index) => {
      pen.strokeStyle = color(`--c${index % 8}`);
      pen.fillStyle = pen.strokeStyle;
      pen.beginPath();
      let isDown = false;
      line.forEach((value, at) => {
        if (value === null) return (isDown = false);
        const isAlone = !isDown && (line[at + 1] ?? null) === null;
        if (isDown) pen.lineTo(x(at, line.length), y(value));
        else pen.moveTo(x(at, line.length), y(value));
        if (isAlone) pen.rect(x(at, line.length) - 1, y(value) - 1, 2, 2);
        isDown = true;
      });
      pen.stroke();
    });
    this.tell();
  }

  /** The last values beside the title, and for those who can't see the lines. */
  tell() {
    const last = this.lines.map((line) => line.at(-1) ?? null);
    const shown = last.map((it) => (it === null ? '–' : this.show(it)));
    const many = last.length > 8;
    const texts = last.length < 2 ? shown : shown.map((text, at) => `${this.name(at)} ${text}`);
    this.canvas.setAttribute('aria-label', [this.legend.previousSibling.textContent, ...texts].join(', '));
    const key = `${last.length} ${texts.join()}`;
    if (this.key === key) return;
    this.key = key;
    this.legend.replaceChildren(...(many ? [] : texts.map((text, at) => {
      const item = document.createElement('span');
      const dot = document.createElementNS(SVG, 'svg');
      const circle = document.createElementNS(SVG, 'circle');
      dot.setAttribute('viewBox', '0 0 2 2');
      dot.setAttribute('aria-hidden', 'true');
      Object.entries({ cx: 1, cy: 1, r: 1, fill: `var(--c${at % 8})` }).forEach(([k, v]) => circle.setAttribute(k, v));
      dot.append(circle);
      item.append(dot, text);
      return item;
    })));
  }
}
