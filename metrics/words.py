"""The figures of metrics.json in plain words, and the text of numbers in tables."""

import math
import re

NOISE = 1e-12  # a smaller spread is rounding
# A figure without its prefix stage1_, as a pattern | what it is | where it is better. The first
# pattern that fits the whole name counts. <f>: a factor, <d>: prior or fitted, <c>: a code, <k>: a
# kind of clips, <n>: a frame.
TABLE = r"""
judge_<f>_accuracy | the judge names the right {f} of real clips | higher
(seq_)?reconstruction_psnr | PSNR of reconstructions, dB | higher
(seq_)?reconstruction_ssim | SSIM of reconstructions | higher
(seq_)?reconstruction_lpips | LPIPS of reconstructions | lower
(seq_)?reconstruction_<f>_pixels_right | reconstructions: {f} right, read from pixels | higher
(seq_)?reconstruction_<f>_pixels_apart | reconstructions: {f}, distance in grey levels | lower
(swap|transfer)_<f>_pixels_right | swaps: {f} right, read from pixels | higher
(swap|transfer)_<f>_pixels_apart | swaps: {f}, distance in grey levels | lower
(seq_)?reconstruction_identity_accuracy | reconstructed frames of the right colour | higher
reconstruction_pose_error_deg | error of the angle in reconstructions, degrees | lower
continuation_amplitude_ok | continued clips of the right amplitude | higher
continuation_period_ok | continued clips of the right period | higher
continuation_frames_read | frames of continued clips that can be read | higher
continuation_pose_error_deg | error of the angle in continued clips, degrees | lower
(swap|transfer)_pose_error_deg | error of the angle in swaps, degrees | lower
(swap|transfer)_leak_accuracy | swapped frames of the wrong source's colour | lower
(swap|transfer)_identity_accuracy | swapped frames of the right colour | higher
\w+_<d>_novelty | distance of identities from {d} to training codes | above 0
\w+_<d>_frames_read | clips from {d} with every frame readable | higher
\w+_<d>_one_colour | clips from {d} of one colour throughout | higher
\w+_<d>_<f>_ks_p | p of the KS distance in {f} of clips from {d} | higher
\w+_<d>_<f>_ks | KS distance in {f} of clips from {d} | lower
\w+_<d>_variety | variety of identities from {d} | 1
\w+_<d>_<f>_variety | variety of {f} of identities from {d} | 1
\w+_<d>_<f>_intra_entropy | H(y&#124;x) of {f} with codes from {d}, nats | lower
\w+_<d>_<f>_inter_entropy | H(y) of {f} with codes from {d}, nats | higher
\w+_<d>_<f>_inception_score | IS of {f} with codes from {d} | higher
\w+_<d>_<f>_accuracy | {f} right where the other code is from {d} | higher
(swap|transfer)_<f>_intra_entropy | H(y&#124;x) of {f} in swaps, nats | lower
(swap|transfer)_<f>_inter_entropy | H(y) of {f} in swaps, nats | higher
(swap|transfer)_<f>_inception_score | IS of {f} in swaps | higher
(swap|transfer)_<f>_leak_excess | swaps: {f} of the wrong source, above chance | 0
(swap|transfer)_<f>_leak | swaps: {f} of the wrong source | lower
(swap|transfer)_<f>_accuracy | swaps: {f} of the right source | higher
consistency_accuracy | consistency, all factors at once | higher
consistency_accuracy_per_factor | consistency, each factor by itself | higher
consistency_(fitted_)?inter_entropy | H(y) of drawn clips, nats | higher
consistency_real_inter_entropy | H(y) of real clips, nats |
consistency_(fitted_)?intra_entropy | H(y&#124;x) of drawn clips, nats | lower
consistency_(fitted_)?kl | H(y) - H(y&#124;x) of drawn clips, nats | higher
consistency_<c>_code_<f>_shuffled | {f} from the {c} code, learnt from shuffled labels | chance
consistency_<c>_code_<f> | an MLP reads {f} from the {c} code | high where it belongs
consistency_majority_<f> | always the commonest {f} | chance
consistency_real_<f> | real clips: {f} judged right | higher
consistency_rebuilt_<f> | reconstructions: {f} judged right | higher
consistency_<f> | the same {f} before and after reconstruction | higher
dci_(subset_)?disentanglement | DCI: a dimension serves one factor | higher
dci_(subset_)?completeness | DCI: a factor needs one dimension | higher
dci_informativeness | DCI: accuracy of the forests | higher
dci_informativeness_<f> | DCI: accuracy of the forest of {f} | higher
msd_modularity | MSD: dimensions of a factor serve it alone | higher
msd_compactness | MSD: a factor needs its dimensions alone | higher
msd_explicitness | MSD: accuracy of the trees | higher
msd_explicitness_<f> | MSD: accuracy of the trees of {f} | higher
msd_judge_of_frames_<f>_accuracy | MSD: the judge names the right {f} of real frames | higher
msd_<f>_score | MSD: score of interventions ({f}) | higher
msd_consistency_<f> | MSD: frames are consistent ({f}) | higher
long_<k>_amplitude_ok_<n> | {k} clips of the right amplitude, frames 17 to {n} | higher
long_<k>_period_ok_<n> | {k} clips of the right period, frames 17 to {n} | higher
long_<k>_frames_read_<n> | readable frames of {k} clips, frames 17 to {n} | higher
long_<k>_pose_error_deg_<n> | error of the angle in {k} clips, degrees, frames 17 to {n} | lower
long_<k>_identity_accuracy_<n> | {k} clips: frames 17 to {n} of the right colour | higher
long_<c>_code_colour | colours right, regressed from the {c} code | high where it belongs
long_<c>_code_<f> | R² of {f}, regressed from the {c} code | high where it belongs
pairs_judge_<f>_accuracy | held-out pairs: the judge names the right {f} | higher
pairs_psnr | held-out pairs: PSNR, dB | higher
pairs_<f>_accuracy | held-out pairs: {f} right | higher
(fitted_)?fid | FID of drawn clips | lower
(fitted_)?fid_release_<f> | FID of {f} clips, as in the release | lower
"""
GROUPS = {"<f>": "(?P<f>.+)", "<d>": "(?P<d>prior|fitted)", "<c>": "(?P<c>identity|dynamics)"}
GROUPS |= {"<k>": "(?P<k>continued|transferred)", "<n>": "(?P<n>[0-9]+)"}
DRAWS = {"prior": "the prior", "fitted": "the fitted density"}
# Why a figure may have no value: a pattern | the reason. The last one fits any figure.
REASONS = """
.*leak.* | no two sources differ in it
.*_ks(_p)? | no drawn clip was readable
.*variety | the real clips do not vary in it
dci_.* | it needs two factors and two dimensions
.* | no clip counts for it
"""


def _rows(table):
    return [[cell.strip() for cell in line.split(" | ")] for line in table.strip().splitlines()]


def _patterns():
    for pattern, words, *better in _rows(TABLE):
        for group, expression in GROUPS.items():
            pattern = pattern.replace(group, expression)
        yield re.compile(pattern), words.replace("&#124;", "|"), "".join(better)


PATTERNS = list(_patterns())


def in_words(figure: str) -> tuple[str, str]:
    """A figure of metrics.json in plain words, and where it is better; ('', '') if unknown."""
    for pattern, words, better in PATTERNS:
        if match := pattern.fullmatch(figure.removeprefix("stage1_")):
            fields = {name: DRAWS.get(text, text) for name, text in match.groupdict().items()}
            return words.format(**{n: text.replace("_", " ") for n, text in fields.items()}), better
    return "", ""


def why_missing(figure: str) -> str:
    """Why a figure has no value, in words."""
    name = figure.removeprefix("stage1_")
    return next(reason for pattern, reason in _rows(REASONS) if re.fullmatch(pattern, name))


def short_spread(value: float | None, digits: str = ".2g") -> str:
    """A spread as text. Below NOISE it is shown as 0; '' if there is none."""
    if value is None or math.isnan(value):
        return ""
    return "0" if abs(value) < NOISE else f"{value:{digits}}"
