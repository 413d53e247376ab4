// Persons and their actions in a video, from an exported model (.onnx, and its .json
// beside it) and frames as PPM on standard input:
//
//   npm install
//   ffmpeg -v error -i VIDEO -f image2pipe -c:v ppm - | node detect.mjs MODEL.onnx FPS
//
// A third argument is the seconds between keyframes (1). Prints the JSON of
// stmixer detect --tracker none; the video's frames must be at one rate.

import { readFileSync } from 'node:fs';
import ort from 'onnxruntime-node';

function fail(reason) {
  console.error(`error: ${reason}`);
  process.exit(1);
}
process.on('uncaughtException', (error) => fail(error.message));

// Frames { width, height, data } of RGB bytes.
async function* readFrames(stream) {
  let parts = [];
  let size = 0;
  let needed = 1;
  for await (const chunk of stream) {
    parts.push(chunk);
    size += chunk.length;
    while (size >= needed) {
      let data = Buffer.concat(parts);
      const header = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(data.toString('latin1', 0, 64));
      if (!header && size >= 64) fail('standard input is no PPM with 8 bits a colour.');
      const [width, height] = header ? header.slice(1).map(Number) : [];
      const start = header?.[0].length;
      needed = header ? start + 3 * width * height : size + 1;
      if (size >= needed) {
        yield { width, height, data: data.subarray(start, needed) };
        data = data.subarray(needed);
        needed = 1;
      }
      parts = [data];
      size = data.length;
    }
  }
  if (size) fail('standard input ends within a frame.');
}

// The nearest whole number, of two equally near the even one.
function nearest(value) {
  const low = Math.floor(value);
  const above = Math.round((value - low) * 1e6) / 1e6;
  return low + (above > 0.5 || (above === 0.5 && low % 2) ? 1 : 0);
}

const round = (value, digits) => nearest(value * 10 ** digits) / 10 ** digits;

// For each of `to` pixels along an axis: two of the `from` pixels, and their weights.
function weigh(from, to, isRow) {
  return Array.from({ length: to }, (_, place) => {
    const centre = Math.fround((place + 0.5) * (from / to) - 0.5);
    const first = Math.floor(centre);
    const isInside = isRow || (first >= 0 && first < from - 1);
    const share = isInside ? Math.fround(centre - first) : 0;
    const clip = (index) => Math.min(Math.max(index, 0), from - 1);
    const weights = [1 - share, share].map((one) => nearest(Math.fround(one) * 2048));
    return [clip(first), clip(first + 1), ...weights];
  });
}

// Bilinear, in the integers of OpenCV, so that the pixels are those of the training.
function resize({ width, height, data }, [newHeight, newWidth]) {
  const result = new Uint8Array(3 * newHeight * newWidth);
  const columns = weigh(width, newWidth, false);
  const isHalf = width === 2 * newWidth && height === 2 * newHeight; // then the mean
  let at = 0;
  for (const [top, bottom, above, below] of weigh(height, newHeight, true)) {
    for (const [left, right, before, after] of columns) {
      for (let colour = 0; colour < 3; colour++) {
        const pixel = (row, column) => data[3 * (row * width + column) + colour];
        const [upper, lower] = [top, bottom].map((row) =>
          isHalf
            ? pixel(row, left) + pixel(row, right)
            : (pixel(row, left) * before + pixel(row, right) * after) >> 4);
        result[at++] = isHalf
          ? (upper + lower + 2) >> 2
          : (((above * upper) >> 16) + ((below * lower) >> 16) + 2) >> 2;
      }
    }
  }
  return result;
}

// Height and width of what goes into the model, for frames of a video.
function findSize({ width, height }, { shape, sides }) {
  if (!sides) fail('the model wants more than a resize of its frames; see its config.');
  const scale = Math.min(
    (sides[0] ?? Infinity) / Math.max(height, width), sides[1] / Math.min(height, width));
  const size = [height, width].map((side) => Math.floor(side * scale + 0.5));
  if (size.some((side, i) => side !== (shape[i + 1] ?? side))) {
    fail(`the model takes frames of ${shape.slice(1)} pixels, but these become ${size}.`);
  }
  return size;
}

// A clip (1, 3, T, h, w) of frames (h, w, 3).
function stack(frames, [height, width]) {
  const area = height * width;
  const data = new Uint8Array(3 * frames.length * area);
  frames.forEach((frame, number) => {
    for (let colour = 0; colour < 3; colour++) {
      const start = (colour * frames.length + number) * area;
      for (let i = 0; i < area; i++) data[start + i] = frame[3 * i + colour];
    }
  });
  return new ort.Tensor('uint8', data, [1, 3, frames.length, height, width]);
}

function overlap(a, b) {
  const area = ([x1, y1, x2, y2]) => Math.max(x2 - x1, 0) * Math.max(y2 - y1, 0);
  const [left, top] = [0, 1].map((i) => Math.max(a[i], b[i]));
  const [right, bottom] = [2, 3].map((i) => Math.min(a[i], b[i]));
  const shared = area([left, top, right, bottom]);
  return shared / (area(a) + area(b) - shared);
}

function readPersons(outputs, about, { width, height }) {
  const scores = outputs.person_scores.data;
  const rows = (name) => {
    const { data, dims } = outputs[name];
    return (query) => [...data.subarray(query * dims[2], (query + 1) * dims[2])];
  };
  const [bboxOf, actionsOf] = [rows('bboxes'), rows('action_scores')];
  const sure = [...scores.keys()].filter((i) => scores[i] >= Math.fround(about.person_thr));
  const kept = [];
  for (const query of sure.sort((a, b) => scores[b] - scores[a])) {
    const overlaps = kept.map((other) => overlap(bboxOf(query), bboxOf(other)));
    if (overlaps.every((iou) => !(iou > about.nms_thr))) kept.push(query);
  }
  return kept.sort((a, b) => a - b).map((query) => ({
    bbox: bboxOf(query).map((share, i) => round(share * (i % 2 ? height : width), 2)),
    score: round(scores[query], 4),
    actions: actionsOf(query)
      .map((score, i) => ({ action: about.classes?.[i] ?? `action ${i + 1}`, score }))
      .filter(({ score }) => score >= Math.fround(about.action_thr))
      .sort((a, b) => b.score - a.score)
      .map(({ action, score }) => ({ action, score: round(score, 4) })),
  }));
}

const [file, fps, interval = 1] = [process.argv[2], ...process.argv.slice(3).map(Number)];
if (!(fps > 0 && interval > 0)) fail('usage: node detect.mjs MODEL.onnx FPS [SECONDS]');
const about = JSON.parse(readFileSync(`${file}.json`));
if (about.tubelets || about.ahead_s) fail('only models of keyframes are read here.');
const session = await ort.InferenceSession.create(file);
const found = { version: 1, video: '-', fps, width: 0, height: 0, total_frames: 0, keyframes: [] };
const pictures = new Map(); // frames as the model takes them, by number
let size;
let last;
let next = 0; // keyframe

const keyframe = (number) => nearest(number * interval * fps);
const steps = Array.from(
  { length: about.shape[0] }, (_, i) => (i - about.keyframe) * about.frame_interval);
// Numbers of the frames of a clip: those beyond the video's ends repeat its first and last.
const clipAround = (frame, end = Infinity) =>
  steps.map((step) => Math.min(Math.max(frame + step, 0), end));

async function detect(number, end = Infinity) {
  const frame = Math.min(keyframe(number), end);
  if (frame <= (found.keyframes.at(-1)?.frame ?? -1)) return; // no frame is one twice
  const clip = clipAround(frame, end).map((index) => pictures.get(index));
  const outputs = await session.run({ clips: stack(clip, size) });
  const persons = readPersons(outputs, about, found);
  found.keyframes.push({ time_s: round(number * interval, 3), frame, persons });
}

for await (last of readFrames(process.stdin)) {
  if (!size) {
    size = findSize(last, about);
    Object.assign(found, { width: last.width, height: last.height });
  }
  const index = found.total_frames++;
  for (let number = next; keyframe(number) + steps[0] <= index; number++) {
    if (clipAround(keyframe(number)).includes(index)) {
      pictures.set(index, resize(last, size));
      break;
    }
  }
  while (keyframe(next) + steps.at(-1) <= index) {
    await detect(next++);
    const first = keyframe(next) + steps[0];
    [...pictures.keys()].filter((key) => key < first).forEach((key) => pictures.delete(key));
  }
}
if (!last) fail('standard input has no frame.');
const end = found.total_frames - 1;
pictures.set(end, resize(last, size));
while (next * interval < found.total_frames / fps - 1e-6) await detect(next++, end);
console.log(JSON.stringify(found, null, 2));
