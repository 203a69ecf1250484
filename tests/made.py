"""Made files of the forms that users bring: small ones of noise, for tests of what reads them."""

from pathlib import Path

import numpy as np

from data.sprites import store

FILM = 40  # frames of a clip: 20 are kept, the default --seq_len
CLIPS = 16


def mug(folder, clips=CLIPS, film=FILM, actions=(0, 1, 3, 4, 7, 8), people=4, seed=0):
    """Write MUG-FED's two files into folder/MUG-FED: `clips` clips of `film` frames (one number, or one a clip), actions and
    people in turn. Returns folder/MUG-FED, the clips (a list of uint8 arrays) and the labels [clips, 2]."""
    rng = np.random.default_rng(seed)
    films = [_film(rng, length) for length in np.broadcast_to(film, clips)]
    turn = np.arange(clips)
    labels = np.stack([turn % people, np.array(actions)[turn % len(actions)]], 1)
    folder = Path(folder) / "MUG-FED"
    folder.mkdir(parents=True, exist_ok=True)
    write_mug(folder, films, labels)
    return folder, films, labels


def write_mug(folder, films, labels):
    """Write clips (a list of arrays) and labels as the two files in `folder`."""
    together = np.empty(len(films), object)
    together[:] = films
    np.savez(folder / "MUG_0-255_OF_112x112_color.npz", together)
    np.savez(folder / "labels.npz", labels)


def _film(rng, length):
    """A few coloured squares that slide: something to learn, and no two frames alike. uint8 [length, 112, 112, 3]."""
    frames = np.full((length, 112, 112, 3), rng.integers(0, 60, 3), np.uint8)
    place, speed = rng.integers(0, 80, (3, 2)), rng.integers(1, 3, (3, 2))
    for time in range(length):
        for (y, x), colour in zip((place + time * speed) % 90, np.eye(3) * 200):
            frames[time, y : y + 20, x : x + 20] = colour + rng.integers(0, 50, 3)
    return frames


def sprites(folder, characters=6):
    """Write a set of sprites into folder/sprites, as the composer would leave it: noise, nine clips a character."""
    labels = {name: np.zeros(9 * characters, np.int64) for name in store.LABELS}
    labels["character"] = np.repeat(np.arange(characters), 9)
    labels["action"] = np.tile(np.arange(9), characters)

    def fill(frames):
        frames[:] = np.random.default_rng(0).integers(0, 256, frames.shape)
        return labels, store.draw_split(labels["character"])

    store.write(Path(folder) / "sprites", (9 * characters, 8, 64, 64, 3), fill, "composed")
