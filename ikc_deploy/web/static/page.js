"use strict";

const element = (id) => document.getElementById(id);
const state = { setup: null, picture: null, job: null, place: null, cropTimer: 0, cropNumber: 0 };

function say(text, isError = false) {
  element("message").textContent = text;
  element("message").className = isError ? "error" : "";
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      ...options,
      headers: { "x-ikc": "1", ...(options.headers || {}) },
    });
  } catch {
    throw new Error("The page's server does not answer. Is ikc-web still running?");
  }
  if (!answer.ok && answer.status >= 500) throw new Error("The server failed; its log has the details.");
  return answer;
}

async function askJson(path, options = {}) {
  const values = await (await ask(path, options)).json();
  if (values.error && !values.job) throw new Error(sentence(values.error));
  return values;
}

function sentence(text) {
  const ended = /[.!?]$/.test(text) ? text : text + ".";
  return ended[0].toUpperCase() + ended.slice(1);
}

const post = (path, values) => askJson(path, { method: "POST", body: JSON.stringify(values) });

async function guarded(work) {
  try { await work(); } catch (error) { say(error.message, true); }
}

function request() {
  const iters = element("iters").value;
  return {
    picture: state.picture.picture,
    weights: element("weights").value,
    iters: iters === "" ? null : Number(iters),
    sigma: element("automatic").checked ? null : Number(element("sigma").value),
    size: element("size").value,
    strength: Number(element("strength").value),
    self_ensemble: element("self-ensemble").checked,
  };
}

function taken(picture) {
  state.picture = picture;
  state.job = null;
  state.place = [Math.floor(picture.width / 2), Math.floor(picture.height / 2)];
  element("picture").textContent = `${picture.name}: ${picture.width} × ${picture.height}`;
  element("go").disabled = false;
  element("compare").hidden = true;
  element("empty").hidden = false;
  say("");
  liveCrop();
}

async function upload(file) {
  const most = state.setup.max_mib * 2 ** 20;
  if (file.size > most) throw new Error(`The file is larger than the limit, ${state.setup.max_mib} MiB.`);
  say("Uploading …");
  taken(await askJson("/api/picture", {
    method: "POST", body: file, headers: { "x-name": encodeURIComponent(file.name) },
  }));
}

async function upscale() {
  say("Starting …");
  element("go").disabled = true;
  element("cancel").hidden = element("progress").hidden = false;
  try {
    let job = await post("/api/upscale", request());
    state.job = job.job;
    while (job.state === "waiting" || job.state === "running") {
      const bar = element("progress");
      if (job.state === "running" && job.passes <= job.expected) {
        bar.max = job.expected; bar.value = job.passes;
      } else bar.removeAttribute("value");
      say(job.state === "waiting" ? "Waiting for other work …"
        : job.passes > job.expected ? `Pass ${job.passes} of the networks, in tiles …`
          : `Pass ${job.passes} of ${job.expected} …`);
      await new Promise((resolve) => setTimeout(resolve, 250));
      job = await askJson(`/api/jobs/${job.job}`);
    }
    if (job.state === "failed") throw new Error(sentence(job.error));
    if (job.state === "cancelled") say("Cancelled.");
    else await show(job);
  } finally {
    element("go").disabled = state.picture === null;
    element("cancel").hidden = element("progress").hidden = true;
  }
}

async function show(job) {
  say("Loading the pictures …");
  state.done = job;
  element("before").src = `/api/jobs/${job.job}/bicubic.png`;
  element("step").max = job.blurs.length - 1;
  element("step").value = job.blurs.length - 1;
  element("step").disabled = job.blurs.length < 2;
  showStep();
  // Another job or step may replace a picture while it loads.
  await Promise.allSettled(["before", "after"].map((id) => element(id).decode()));
  element("empty").hidden = true;
  element("compare").hidden = false;
  divide();
  say(`${job.width} × ${job.height} in ${(job.milliseconds / 1000).toFixed(1)} s.`);
}

function showStep() {
  const job = state.done, step = Number(element("step").value), blur = job.blurs[step];
  element("step-value").textContent = `${step} of ${job.blurs.length - 1}`;
  element("after").src = `/api/jobs/${job.job}/${step}.png`;
  link();
  drawKernel(blur.kernel);
  const round = blur.long - blur.short < 0.1 * blur.long;
  const words = (job.known ? "Given blur: " : "Estimated blur: ") + (round
    ? `sigma ${blur.sigma.toFixed(2)} pixels of the upscaled picture.`
    : `ellipse with sigmas ${blur.long.toFixed(2)} and ${blur.short.toFixed(2)}, at ${blur.angle.toFixed(0)}°.`);
  element("blur").textContent = words;
  element("kernel").setAttribute("aria-label", `Blur kernel. ${words}`);
}

function link() {
  const format = encodeURIComponent(element("format").value);
  element("download").href = `/api/jobs/${state.done.job}/${element("step").value}/download?format=${format}`;
}

function drawKernel(rows) {
  const canvas = element("kernel"), side = rows.length;
  canvas.width = canvas.height = side;
  const pen = canvas.getContext("2d"), image = pen.createImageData(side, side);
  const peak = Math.max(...rows.flat());
  rows.flat().forEach((value, index) => {
    const shade = Math.cbrt(Math.max(0, value) / peak);
    image.data.set([20 + 235 * shade, 24 + 190 * shade ** 2, 60 + 100 * shade * (1 - shade), 255], 4 * index);
  });
  pen.putImageData(image, 0, 0);
}

function divide() {
  const share = Number(element("split").value);
  element("before").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
  element("divider").style.left = `${element("after").clientWidth * share / 100}px`;
  element("divider").style.height = `${element("after").clientHeight}px`;
}

async function takeRange() {
  const weights = element("weights").value, sigma = element("sigma");
  const { sigma_range: [low, high] } = await askJson(`/api/weights/${encodeURIComponent(weights)}`);
  if (weights !== element("weights").value) return;
  const middle = sigma.dataset.chosen ? sigma.value : (low + high) / 2;
  [sigma.min, sigma.max, sigma.value] = [low, high, middle];
  element("sigma-value").textContent = Number(sigma.value).toFixed(2);
  liveCrop();
}

function liveCrop() {
  const automatic = element("automatic").checked;
  element("live").hidden = automatic || !state.picture;
  clearTimeout(state.cropTimer);
  if (automatic || !state.picture) return;
  state.cropTimer = setTimeout(() => guarded(async () => {
    const number = ++state.cropNumber, values = request();
    const answer = await ask("/api/crop", {
      method: "POST",
      body: JSON.stringify({ ...values, x: state.place[0], y: state.place[1] }),
    });
    if (!answer.ok) throw new Error(sentence((await answer.json()).error));
    const image = await answer.blob();
    if (number !== state.cropNumber) return;
    URL.revokeObjectURL(element("crop").src);
    element("crop").src = URL.createObjectURL(image);
    element("crop").dataset.sigma = values.sigma;
    element("live-sigma").textContent = values.sigma.toFixed(2);
  }), 150);
}

function connect() {
  element("file").addEventListener("change", (event) => {
    const file = event.target.files[0];
    if (file) guarded(() => upload(file));
    event.target.value = "";
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      element("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length) {
        guarded(() => upload(event.dataTransfer.files[0]));
      }
    });
  }
  element("sample").addEventListener("click", () => guarded(async () =>
    taken(await askJson("/api/sample", { method: "POST" }))));
  element("go").addEventListener("click", () => guarded(upscale));
  element("cancel").addEventListener("click", () => guarded(() => post(`/api/jobs/${state.job}/cancel`, {})));
  element("step").addEventListener("input", showStep);
  element("format").addEventListener("change", link);
  element("split").addEventListener("input", divide);
  element("after").addEventListener("load", divide);
  window.addEventListener("resize", divide);
  element("full").addEventListener("change", (event) => {
    element("stage").classList.toggle("full", event.target.checked);
    divide();
  });
  element("stage").addEventListener("click", (event) => {
    const box = element("after").getBoundingClientRect();
    state.place = [
      Math.floor((event.clientX - box.left) / box.width * state.picture.width),
      Math.floor((event.clientY - box.top) / box.height * state.picture.height),
    ];
    liveCrop();
  });
  element("automatic").addEventListener("change", (event) => {
    element("sigma").disabled = event.target.checked;
    element("iters").disabled = !event.target.checked;
    liveCrop();
  });
  for (const id of ["sigma", "strength"]) {
    const shown = () => { element(`${id}-value`).textContent = Number(element(id).value).toFixed(2); };
    element(id).addEventListener("input", () => { shown(); liveCrop(); });
  }
  element("sigma").addEventListener("input", () => { element("sigma").dataset.chosen = "1"; });
  element("weights").addEventListener("change", () => guarded(takeRange));
  element("size").addEventListener("change", liveCrop);
}

guarded(async () => {
  connect();
  say("Opening the weights …");
  const setup = state.setup = await askJson("/api/setup");
  for (const [name, scale] of Object.entries(setup.weights)) {
    element("weights").add(new Option(`${name} (×${scale})`, name, false, name === setup.default));
  }
  element("iters").max = setup.max_iters;
  element("limits").textContent = `up to ${setup.max_mib} MiB and ${setup.max_megapixels} million pixels`;
  say("");
  await takeRange();
});
