"""A made-up result, found.pkl, and its truth, GT.pkl, for docs/evaluation.md."""

import pickle

import numpy as np

random = np.random.default_rng(0)
gttubes, rows = {}, []
for number in range(24):
    label, first, video = number % 3, random.integers(2, 12), {}
    for person in range(1 + number % 2):
        low = np.array([30 + 120 * person, 60]) + random.integers(0, 40, 2)
        box = np.concatenate([low, low + random.integers(50, 110, 2)])
        frames = np.arange(first, first + random.integers(12, 24))
        moved = box + np.tile(np.cumsum(random.integers(-2, 3, (len(frames), 2)), 0), 2)
        video.setdefault(label, []).append(
            np.column_stack([frames, moved]).astype(float)
        )
        # Found a little longer than true; in some frames twice, in others not.
        for frame in range(max(first - 6, 1), frames[-1] + 7):
            near = moved[np.clip(frame - first, 0, len(frames) - 1)]
            for _ in range(random.choice(3, p=[0.1, 0.8, 0.1])):
                found = near + random.normal(0, 6, 4)
                scores = random.dirichlet([1, 1, 1]) * 0.4
                scores[label] += random.beta(4, 3) * (0.6 if frame in frames else 0.3)
                for other, score in enumerate(scores):
                    rows.append((number, frame, other, score, *found))
    gttubes[f'v{number:02}'] = video
names = [*gttubes]
truth = dict(
    labels=['run', 'sit', 'jump', 'swim'],  # nobody swims
    train_videos=[[]],
    test_videos=[names],
    nframes=dict.fromkeys(names, 40),
    resolution=dict.fromkeys(names, (240, 320)),
    gttubes=gttubes,
)
with open('GT.pkl', 'wb') as file:
    pickle.dump(truth, file)
with open('found.pkl', 'wb') as file:
    pickle.dump(np.array(rows), file)
