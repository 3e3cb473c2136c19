// The forward pass of a world model: predictor, heads, decoder and out-of-distribution detection.

/** Decodes base64 to bytes. */
function decodeBase64(text) {
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** All 65,536 numbers of half precision, by their bits. */
function halfPrecision() {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent === 31) table[bits] = fraction ? NaN : sign * Infinity;
    else if (exponent === 0) table[bits] = sign * fraction * 2 ** -24;
    else table[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return table;
}

/** Unpacks the arrays that `Weights` in network.py packed, all to Float32Array. */
function unpackWeights(index, bytes) {
  const half = halfPrecision(), view = new DataView(bytes.buffer);
  const read = {
    f4: (offset, i) => view.getFloat32(offset + 4 * i, true),
    f2: (offset, i) => half[view.getUint16(offset + 2 * i, true)],
    i1: (offset, i) => view.getInt8(offset + i),
  };
  const arrays = index.map(([kind, offset, count]) => {
    const array = new Float32Array(count);
    for (let i = 0; i < count; i++) array[i] = read[kind](offset, i);
    return array;
  });
  index.forEach(([kind, , count, factors], place) => {
    if (kind !== "i1") return;
    const scale = arrays[factors], row = count / scale.length;
    for (let i = 0; i < count; i++) arrays[place][i] *= scale[Math.floor(i / row)];
  });
  return arrays;
}

/** Error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26). */
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const sum = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - sum * Math.exp(-x * x));
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const ACTIVATIONS = {
  relu: (x) => (x > 0 ? x : 0),
  silu: (x) => x * sigmoid(x),
  gelu: (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
};

/** A matrix of (outputs, inputs) and a bias. */
function linear({ inputs, outputs, weight, bias }) {
  const y = new Float32Array(outputs);
  return (x) => {
    for (let o = 0, w = 0; o < outputs; o++) {
      let sum = bias[o];
      for (let i = 0; i < inputs; i++) sum += weight[w++] * x[i];
      y[o] = sum;
    }
    return y;
  };
}

/** A 3 x 3 convolution with zero padding: maps (inputs, side, side) to (outputs, side, side). */
function convolution({ side, inputs, outputs, weight, bias }) {
  const wide = side + 2, area = side * side;
  const padded = new Float32Array(inputs * wide * wide), y = new Float32Array(outputs * area);
  return (x) => {
    for (let c = 0; c < inputs; c++) {
      for (let r = 0; r < side; r++) {
        const from = c * area + r * side;
        padded.set(x.subarray(from, from + side), c * wide * wide + (r + 1) * wide + 1);
      }
    }
    for (let o = 0; o < outputs; o++) {
      y.fill(bias[o], o * area, (o + 1) * area);
      for (let c = 0; c < inputs; c++) {
        const k = (o * inputs + c) * 9;
        const a = weight[k], b = weight[k + 1], d = weight[k + 2], e = weight[k + 3], f = weight[k + 4];
        const g = weight[k + 5], h = weight[k + 6], p = weight[k + 7], q = weight[k + 8];
        for (let r = 0; r < side; r++) {
          let top = c * wide * wide + r * wide, middle = top + wide, bottom = middle + wide;
          for (let i = o * area + r * side, end = i + side; i < end; i++, top++, middle++, bottom++) {
            y[i] += a * padded[top] + b * padded[top + 1] + d * padded[top + 2]
              + e * padded[middle] + f * padded[middle + 1] + g * padded[middle + 2]
              + h * padded[bottom] + p * padded[bottom + 1] + q * padded[bottom + 2];
          }
        }
      }
    }
    return y;
  };
}

/** Draws each cell of a map (inputs, side, side) as a patch of an image (size, size, channels). */
function patches({ side, patch, channels, inputs, weight, bias }) {
  const area = side * side, size = side * patch, outputs = patch * patch * channels;
  const image = new Float32Array(size * size * channels), cell = new Float32Array(inputs);
  return (x) => {
    for (let place = 0; place < area; place++) {
      for (let i = 0; i < inputs; i++) cell[i] = x[i * area + place];
      const row = Math.floor(place / side) * patch, column = (place % side) * patch;
      for (let o = 0, w = 0; o < outputs; o++) {
        let sum = bias[o];
        for (let i = 0; i < inputs; i++) sum += weight[w++] * cell[i];
        const pixel = Math.floor(o / channels);
        const at = (row + Math.floor(pixel / patch)) * size + column + (pixel % patch);
        image[at * channels + (o % channels)] = sum;
      }
    }
    return image;
  };
}

const LAYERS = { linear, convolution, patches };

/** Makes a function of layers; what it returns is overwritten by its next call. */
function network(layers, arrays) {
  const steps = layers.map((layer) => {
    if (layer.kind in LAYERS) {
      return LAYERS[layer.kind]({ ...layer, weight: arrays[layer.weight], bias: arrays[layer.bias] });
    }
    const activation = ACTIVATIONS[layer.kind];
    return (x) => {
      for (let i = 0; i < x.length; i++) x[i] = activation(x[i]);
      return x;
    };
  });
  return (x) => steps.reduce((value, step) => step(value), x);
}

function concatenate(...parts) {
  const joined = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** The world model of a page. Latents and action vectors are Float32Array (D) and (A). */
class WorldModel {
  constructor(description, arrays) {
    const { predictor, reward, termination, decoder, domain } = description;
    this.kind = predictor.kind;
    this.change = network(predictor.layers, arrays);
    this.rewardHead = network(reward, arrays);
    this.terminationHead = network(termination, arrays);
    this.decoder = decoder && network(decoder.layers, arrays);
    this.domain = Object.fromEntries(Object.entries(domain).map(([name, place]) => [name, arrays[place]]));
  }

  /** Predicts the next latent. */
  predict(z, action) {
    if (this.kind === "identity") return z.slice();
    const next = this.change(concatenate(z, action)).slice();
    if (this.kind === "residual") for (let i = 0; i < z.length; i++) next[i] += z[i];
    return next;
  }

  /** Predicts the reward and the probability of termination of a transition. */
  outcome(z, action, next) {
    const step = concatenate(z, action, next);
    return { reward: this.rewardHead(step)[0], termination: sigmoid(this.terminationHead(step)[0]) };
  }

  /** Decodes the newest frame, Float32Array (H, W, C), about [0, 1]. */
  decode(z) {
    return this.decoder(z.slice());
  }

  /** The Mahalanobis distance from the training latents, 1 at the limit of the distribution. */
  distance(z) {
    const { mean, whitening, radius } = this.domain, size = z.length;
    let square = 0;
    for (let j = 0; j < size; j++) {
      let sum = 0;
      for (let i = 0; i < size; i++) sum += (z[i] - mean[i]) * whitening[i * size + j];
      square += sum * sum;
    }
    return Math.sqrt(square) / radius[0];
  }

  /** Whether a latent is out of distribution; NaN is. */
  outside(z) {
    const { low, high } = this.domain;
    return !(this.distance(z) <= 1 && z.every((value, i) => value >= low[i] && value <= high[i]));
  }

  /** Clips a latent to the bounds of the observation space, in place; NaN becomes 0 first. */
  clip(z) {
    const { low, high } = this.domain;
    for (let i = 0; i < z.length; i++) {
      z[i] = Math.min(Math.max(Number.isNaN(z[i]) ? 0 : z[i], low[i]), high[i]);
    }
    return z;
  }
}
