"""Random and near-miss command lines: refused in one line, or carried out."""

import functools
import shutil

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.torture import judge
from tests.torture.cases import Case, trained
from tests.torture.server import SMALL
from utils.plan import parser_of, preset_names
from utils.settings import DATASETS, MODELS, settings_class

BATCH = 100  # lines that one search of hypothesis gives
QUICK = 60  # seconds of a busy machine; --dry_run at full size alone takes 12 of processor time
ODD = (
    "", " ", "\t", "\xa0", "0", "-0", "-1", "1", "2", "1_000", "0x10", "1e3", "1.5", "nan", "inf",
    "1e400", "1" * 5000, "9" * 30, "None", "True", "false", "yes", "٣", "é", "\udcff", "\n", "a\nb",
    "\x1b[31m", "../..", "/", "~", ".", "..", "/dev/null", "/dev/zero", "/proc/self/mem", "main.py",
    "a" * 300, "a" * 100_000, "--bs", "-", "--", "=", "1,2", "1,,2", ",", "4,4,4,4,8", "$(id)", "*",
    "%s", "%(prog)s", "{0}", "runs", "runs/demo/config.json", "runs/demo/checkpoints/2_VDSM_seq.pth"
)  # fmt: skip
TINY_NUMBERS = ("0", "1", "2", "3", "0.5", "0.1", "1e-9")


@functools.cache
def flags() -> dict[str, tuple]:
    """{--flag: values that it takes}, of every model and data set."""
    known = {}
    for model in MODELS:
        for dataset in DATASETS:
            for action in parser_of(settings_class(model, dataset))._actions:
                choices = tuple(map(str, action.choices or ()))
                known[action.option_strings[-1]] = choices or TINY_NUMBERS
    known["--preset"] = tuple(preset_names())
    return known


def typo(text_and_place) -> str:
    """A text with one character left out, doubled, in the other case or swapped."""
    text, place, kind = text_and_place
    at = place % max(len(text), 1)
    before, here, after = text[:at], text[at : at + 1], text[at + 1 :]
    return (before + after, before + 2 * here + after, before + here.swapcase() + after,
            before + after[:1] + here + after[1:])[kind]  # fmt: skip


def pairs() -> st.SearchStrategy:
    """A flag with its value, as one or two parts, often wrong."""
    vdsm = [f"--{name}" for name in settings_class("vdsm").__dataclass_fields__]
    names = st.sampled_from([*sorted(flags()), *3 * vdsm])
    wrong = st.tuples(names, st.integers(0, 30), st.integers(0, 3)).map(typo)
    floats = st.floats(allow_subnormal=False)  # torch may have switched these off
    odd = st.one_of(st.sampled_from(ODD), st.text(max_size=8), floats.map(str))

    def pair(name):
        good = st.sampled_from(flags().get(name, ODD))
        near = st.tuples(good, st.integers(0, 9), st.integers(0, 3)).map(typo)
        value = st.one_of(*6 * [good], near, odd)
        forms = (lambda v: [name, v], lambda v: [name, v], lambda v: [f"{name}={v}"])
        return st.tuples(value, st.sampled_from(forms)).map(lambda both: both[1](both[0]))

    alone = st.one_of(names, st.sampled_from(ODD)).map(lambda text: [text])
    named = names.flatmap(pair)
    return st.one_of(*8 * [named], wrong.flatmap(pair), alone)


@functools.lru_cache(maxsize=4)
def batch(number: int, of_seed: int) -> list[list[str]]:
    """Batch `number` of command lines: always the same ones for one seed."""
    found = []

    @seed(of_seed * 1_000_003 + number)
    @settings(max_examples=BATCH, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.lists(pairs(), max_size=3))
    def collect(parts):
        found.append([text for part in parts for text in part if "\0" not in text])

    collect()
    return found


def run(case: Case) -> None:
    """Give one line, by itself or after the flags of a small run, where a run may be."""
    lines = batch(case.number // BATCH, case.seed)
    line = lines[case.number % BATCH % len(lines)]
    where = case.rng.choice(("dry", "dry", "alone", "run", "run"))
    if where == "dry":
        line = [*case.rng.choice(([], SMALL)), *line, "--dry_run", "True"]
    elif where == "run":  # the sizes of SMALL count, so that what is accepted is carried out
        case.copy(trained(case).folder)
        if case.rng.random() < 0.5:
            shutil.rmtree(case.run / "checkpoints")
        line = [*line, *SMALL]
    elif any(word in " ".join(line) for word in ("--preset", "--train")):  # no whole training
        line = [*line, "--dry_run", "True"]
    case.notes.append(repr(line))
    judge.ended(case.live(line, limit=QUICK), 0, 2)
