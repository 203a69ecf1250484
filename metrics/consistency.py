"""The consistency protocol of the VDSM notebooks, with two of their mistakes corrected.

They draw their split with replacement, so that held-out clips train, and never zero the gradients.
Their judge and their code classifiers are larger and train for longer (docs/FIDELITY.md).
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from metrics.entropy import entropies
from metrics.judge import learn, verdicts
from metrics.summary import Arrays, Measure

HIDDEN, STEPS, RATE, DECAY = 128, 200, 5e-3, 1e-2


def agreement(real: Arrays, rebuilt: Arrays, labels: Arrays) -> dict[str, Measure]:
    """Agreement of a judge on real clips and on their reconstructions, and its accuracies.

    real, rebuilt: its probabilities {factor: [n, C]}; labels {factor: int [n]}. {factor}: the same
    verdict on both clips, right or wrong. accuracy: the same in every factor. accuracy_per_factor:
    the mean over the factors, each counted by itself as in the notebooks of the release.
    real_{factor}, rebuilt_{factor}: the verdict is right; _joint: right in every factor.
    """
    on_real, on_rebuilt = verdicts(real), verdicts(rebuilt)
    hits = {factor: on_real[factor] == on_rebuilt[factor] for factor in on_real}
    each = list(hits.values())
    both = {"accuracy": np.all(each, axis=0), "accuracy_per_factor": np.mean(each, axis=0)}
    hits = both | hits
    for kind, judged in (("real", on_real), ("rebuilt", on_rebuilt)):
        right = {f"{kind}_{factor}": judged[factor] == labels[factor] for factor in judged}
        hits |= right | {f"{kind}_joint": np.all(list(right.values()), axis=0)}
    return {name: Measure(values) for name, values in hits.items()}


def prior_entropies(probabilities: Arrays) -> dict[str, float]:
    """`entropies` of a judge's probabilities {factor: [n, C]}, averaged over the factors."""
    per_factor = np.array([entropies(p) for p in probabilities.values()])
    return dict(zip(("inter_entropy", "intra_entropy", "kl"), per_factor.mean(0).tolist()))


class CodeClassifier(nn.Module):
    """p(factor | code) with one hidden layer: code [n, D] -> {factor: logits [n, C]}.

    classes {factor: C}; mean, std [D] of the training codes, to standardise the code.
    """

    def __init__(self, classes, mean, std):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.hidden = nn.Linear(len(mean), HIDDEN)
        heads = {factor: nn.Linear(HIDDEN, count) for factor, count in classes.items()}
        self.heads = nn.ModuleDict(heads)

    def forward(self, code):
        features = F.leaky_relu(self.hidden((code - self.mean) / self.std))
        return {factor: head(features) for factor, head in self.heads.items()}


def train_code_classifier(
    codes: np.ndarray, labels: Arrays, classes: dict[str, int], seed: int = 0
) -> CodeClassifier:
    """Train a `CodeClassifier`, STEPS steps on all codes [n, ...] with labels {factor: int [n]}."""
    codes = _flat(codes)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = CodeClassifier(classes, codes.mean(0), codes.std(0).clamp_min(1e-6))
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY, fused=True)
    for _ in range(STEPS):
        learn(network, optimiser, codes, labels)
    return network.eval()


@torch.no_grad()
def read_codes(classifier: CodeClassifier, codes: np.ndarray) -> Arrays:
    """The classifier's likeliest value of each factor, int64 [n], from codes [n, ...]."""
    return verdicts({factor: logits.numpy() for factor, logits in classifier(_flat(codes)).items()})


def code_table(
    train: Arrays, train_labels: Arrays, test: Arrays, test_labels: Arrays, classes: dict, seed=0
) -> dict[str, float]:
    """The disentanglement table: {code}_{factor}, the accuracy of an MLP that reads a code.

    train, test: {name of the code: [n, ...]}; labels {factor: int [n]}; classes {factor: C}. Two
    figures show chance: {code}_{factor}_shuffled, learnt from shuffled labels, and
    majority_{factor}, if the answer is always the commonest value of the training clips.
    """
    order = np.random.default_rng(seed).permutation(len(next(iter(train_labels.values()))))
    shuffled = {factor: values[order] for factor, values in train_labels.items()}
    table = {}
    for name, codes in train.items():
        for ending, labels in (("", train_labels), ("_shuffled", shuffled)):
            classifier = train_code_classifier(codes, labels, classes, seed)
            for factor, verdict in read_codes(classifier, test[name]).items():
                right = verdict == test_labels[factor]
                table[f"{name}_{factor}{ending}"] = float(right.mean())
    for factor in classes:
        commonest = np.bincount(train_labels[factor]).argmax()
        table[f"majority_{factor}"] = float((test_labels[factor] == commonest).mean())
    return table


def _flat(codes):
    return torch.as_tensor(np.asarray(codes)).float().flatten(1)
