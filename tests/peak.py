"""The peak memory of a command: python tests/peak.py [said] STAGE --FLAG VALUE ...

Runs the command's stage to its third step and prints the largest resident memory of the process in
bytes. Stage 2 stands on fresh weights if the folder of the run has no checkpoint of stage 1.
said: prints what --dry_run says in place of it.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
STEPS = 3


def peak_of_this_process() -> int:
    """Bytes, as Linux counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def main(stage_name, argv, said):
    import main as program
    from utils.plan import parse

    plan = parse(argv)
    plan.stages = {stage_name: plan.stages[stage_name]}
    if said:
        from dry_run import memory, resident

        print(round(memory(stage_name, plan.stages[stage_name], resident())["peak"]))
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    import train_test
    from utils import guards

    guards.refuse_missing_earlier_stage = lambda *_: None
    datasets = program.prepared(plan)

    take_step, build, steps = train_test.take_step, train_test.build, []

    def counted(*given):
        result = take_step(*given)
        steps.append(result)
        if len(steps) == STEPS:
            print(peak_of_this_process(), flush=True)
            os._exit(0)
        return result

    def fresh(settings, info, folder):
        if info.stands_on and not folder.choose(info.stands_on):
            return info.stage().build(settings)
        return build(settings, info, folder)

    train_test.take_step, train_test.build = counted, fresh
    train_test.run(plan, argv, datasets)


if __name__ == "__main__":
    said, given = "said" in sys.argv, [part for part in sys.argv[1:] if part != "said"]
    main(given[0], given[1:], said)
