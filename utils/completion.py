"""`python -m utils.completion` prints the completion of `python main.py` for bash and zsh.

The file that it prints completes the names of all flags and, where a flag has few values, these
values. Anything else is completed as before, for instance the names of files. Imports no torch.
"""

import string
import sys

from utils.errors import in_one_line
from utils.flags import OneLineParser
from utils.plan import parser_of
from utils.presets import preset_names
from utils.settings import DATASETS, MODELS, RunSettings, settings_class

BOOLEANS = ("True", "False")
SCRIPT = string.Template("""\
# Completion of 'python main.py'. In bash:  source <(python -m utils.completion)
# In zsh, first:  autoload -Uz bashcompinit && bashcompinit
_vdsm_values() {
  case "$$1" in
$values
  esac
}
_vdsm_main() {
  COMPREPLY=()
  case " $${COMP_WORDS[*]} " in
    *" main.py "* | *"/main.py "*) ;;
    *) return ;;
  esac
  local word="$${COMP_WORDS[COMP_CWORD]}" before="$${COMP_WORDS[COMP_CWORD-1]}"
  local values="$$(_vdsm_values "$$before")"
  if [[ "$$word" == -* ]]; then
    values="$flags"
  fi
  COMPREPLY=($$(compgen -W "$$values" -- "$$word"))
}
complete -o bashdefault -o default -F _vdsm_main python python3 main.py
""")


def values_by_flag() -> dict[str, tuple[str, ...]]:
    """{'--flag': the values to offer, or () if they are not few}, over all models and data sets."""
    offered = {"--help": ()}
    classes = [settings_class(model) for model in MODELS]
    classes += [settings_class(RunSettings.model, name) for name in DATASETS]
    for cls in dict.fromkeys(classes):
        for action in parser_of(cls)._actions:
            values = BOOLEANS if action.nargs == "?" else action.choices or ()
            offered[action.option_strings[-1]] = tuple(map(str, values))
    return offered | {"--preset": tuple(preset_names()), "--dataset_name": tuple(DATASETS)}


def script() -> str:
    """The text of the file for the shell."""
    offered = dict(sorted(values_by_flag().items()))
    lines = [f'    {f}) echo "{" ".join(values)}" ;;' for f, values in offered.items() if values]
    return SCRIPT.substitute(values="\n".join(lines), flags=" ".join(offered))


@in_one_line
def main(argv: list[str]) -> int:
    """Print the file; returns the exit status."""
    OneLineParser("python -m utils.completion", description=__doc__.splitlines()[0]).parse_args(
        argv
    )
    print(script(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
