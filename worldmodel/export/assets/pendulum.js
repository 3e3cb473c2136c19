// The true double pendulum: the equations of motion and the integration of envs/physics.py.

/** Angular accelerations of a state [θ1, θ2, ω1, ω2] under torques on shoulder and elbow. */
function accelerations([theta1, theta2, omega1, omega2], [shoulder, elbow], params) {
  const { gravity, length1, length2, mass1, mass2, damping } = params;
  const sine = Math.sin(theta1 - theta2), cosine = Math.cos(theta1 - theta2);
  const coupling = mass2 * length1 * length2, total = elbow - damping * (omega2 - omega1);
  const f1 = shoulder - damping * omega1 - total - coupling * sine * omega2 ** 2
    - (mass1 + mass2) * gravity * length1 * Math.sin(theta1);
  const f2 = total + coupling * sine * omega1 ** 2 - mass2 * gravity * length2 * Math.sin(theta2);
  const m11 = (mass1 + mass2) * length1 ** 2, m12 = coupling * cosine, m22 = mass2 * length2 ** 2;
  const determinant = coupling * length1 * length2 * (mass1 + mass2 * sine * sine);
  return [(m22 * f1 - m12 * f2) / determinant, (m11 * f2 - m12 * f1) / determinant];
}

/** Butcher's method of order 6: the weights of earlier slopes in each stage, and in the step. */
const STAGES = [
  [1 / 3],
  [0, 2 / 3],
  [1 / 12, 1 / 3, -1 / 12],
  [-1 / 16, 9 / 8, -3 / 16, -3 / 8],
  [0, 9 / 8, -3 / 8, -3 / 4, 1 / 2],
  [9 / 44, -9 / 11, 63 / 44, 18 / 11, 0, -16 / 11],
];
const WEIGHTS = [11 / 120, 0, 27 / 40, 27 / 40, -4 / 15, -4 / 15, 11 / 120];

/** One Runge-Kutta step of h seconds. */
function rungeKutta(state, torques, params, h) {
  const slope = (s) => [s[2], s[3], ...accelerations(s, torques, params)];
  const slopes = [slope(state)];
  const moved = (weights) => state.map(
    (value, i) => value + h * weights.reduce((sum, weight, k) => sum + weight * slopes[k][i], 0));
  for (const weights of STAGES) slopes.push(slope(moved(weights)));
  return moved(WEIGHTS);
}

const wrapAngle = (angle) => angle - 2 * Math.PI * Math.ceil((angle - Math.PI) / (2 * Math.PI));

/** The task of envs/task.py: torques, dynamics and rewards. */
class Pendulum {
  constructor(description) {
    Object.assign(this, description);
  }

  /** Total energy, zero where it hangs down at rest. */
  energy([theta1, theta2, omega1, omega2]) {
    const { gravity, length1, length2, mass1, mass2 } = this.params;
    const v1 = length1 * omega1, v2 = length2 * omega2;
    const kinetic = 0.5 * (mass1 + mass2) * v1 ** 2 + 0.5 * mass2 * v2 ** 2 + mass2 * v1 * v2 * Math.cos(theta1 - theta2);
    return kinetic + (mass1 + mass2) * gravity * length1 * (1 - Math.cos(theta1))
      + mass2 * gravity * length2 * (1 - Math.cos(theta2));
  }

  /** Number of integration steps, so that the fastest possible motion covers `stepAngle` at most. */
  substeps(state, [shoulder, elbow]) {
    const { gravity, length1, length2, mass1, mass2 } = this.params;
    const inertia = ((mass1 * mass2) / (mass1 + mass2)) * Math.min(length1, length2) ** 2;
    const impulse = (Math.abs(shoulder) + Math.abs(elbow)) * this.dt;
    const spin = (2 * this.energy(state) + impulse ** 2 / inertia) / inertia;
    const swing = gravity * (1 / length1 + 1 / length2);
    const rate = Math.sqrt((swing + spin) * (1 + mass2 / mass1));
    return Math.ceil(Math.min(Math.max(1, (this.dt * rate) / this.stepAngle), this.maxSubsteps));
  }

  /** Advances a state by one step of the model; returns it with the reward. */
  step(state, action) {
    const torques = [0, 0];
    this.joints.forEach((joint, i) => (torques[joint] = this.maxTorque * Math.min(Math.max(action[i], -1), 1)));
    let reward = 0;
    for (let repeat = 0; repeat < this.repeats; repeat++) {
      const count = this.substeps(state, torques);
      for (let i = 0; i < count; i++) state = rungeKutta(state, torques, this.params, this.dt / count);
      state = [wrapAngle(state[0]), wrapAngle(state[1]), state[2], state[3]];
      reward += this.reward(state, torques);
    }
    return { state, reward };
  }

  /** Tip height in [0, 1], minus the costs of torque and speed. */
  reward([theta1, theta2, omega1, omega2], torques) {
    const { length1, length2 } = this.params, reach = length1 + length2;
    const height = (reach - length1 * Math.cos(theta1) - length2 * Math.cos(theta2)) / (2 * reach);
    const effort = torques.reduce((sum, torque) => sum + (torque / this.maxTorque) ** 2, 0) / this.joints.length;
    return height - this.torqueCost * effort - this.speedCost * 0.5 * (omega1 ** 2 + omega2 ** 2);
  }
}

/** Reads both angles from latents, by the probe of the run. */
function angleProbe({ layers, inputs_mean, inputs_scale, outputs_mean, outputs_scale }, arrays) {
  const net = network(layers, arrays);
  const [center, width, shift, factor] = [inputs_mean, inputs_scale, outputs_mean, outputs_scale].map((place) => arrays[place]);
  return (z) => {
    const targets = net(z.map((value, i) => (value - center[i]) / width[i]));
    const [sine1, sine2, cosine1, cosine2] = targets.slice(0, 4).map((value, i) => value * factor[i] + shift[i]);
    return [Math.atan2(sine1, cosine1), Math.atan2(sine2, cosine2)];
  };
}

/** Draws angles onto a canvas, as envs/raster.py does. */
function drawPendulum(canvas, [theta1, theta2], { scene, params }) {
  const context = canvas.getContext("2d"), side = canvas.width;
  const color = ([r, g, b]) => `rgb(${r},${g},${b})`;
  const scale = (side * (0.5 - scene.bobRadius - scene.margin)) / (params.length1 + params.length2);
  const x0 = side / 2, y0 = side / 2;
  const x1 = x0 + scale * params.length1 * Math.sin(theta1), y1 = y0 + scale * params.length1 * Math.cos(theta1);
  const x2 = x1 + scale * params.length2 * Math.sin(theta2), y2 = y1 + scale * params.length2 * Math.cos(theta2);
  const rod = (ax, ay, bx, by, paint) => {
    context.strokeStyle = color(paint);
    context.beginPath();
    context.moveTo(ax, ay);
    context.lineTo(bx, by);
    context.stroke();
  };
  const disc = (x, y, radius, paint) => {
    context.fillStyle = color(paint);
    context.beginPath();
    context.arc(x, y, radius * side, 0, 2 * Math.PI);
    context.fill();
  };
  context.fillStyle = color(scene.background);
  context.fillRect(0, 0, side, side);
  context.lineCap = "round";
  context.lineWidth = 2 * scene.rodRadius * side;
  rod(x0, y0, x1, y1, scene.rod1);
  disc(x0, y0, scene.pivotRadius, scene.pivot);
  rod(x1, y1, x2, y2, scene.rod2);
  disc(x1, y1, scene.bobRadius, scene.bob1);
  disc(x2, y2, scene.bobRadius, scene.bob2);
}
