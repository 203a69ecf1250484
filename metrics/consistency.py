"""The consistency protocol (VDSM's two notebooks), mended: their split is drawn with replacement, so that clips stand in both
halves, and their gradients are never zeroed; here no held-out clip trains anything, and they are.

Agreement of a judge on real clips and on their reconstructions, entropies of clips from the prior, and what an MLP reads of each
factor in either code. A judge that always says the same agrees perfectly: its accuracies stand beside, always.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from metrics.entropy import entropies
from metrics.judge import shares, verdicts
from metrics.summary import Measure

SEEDS = (0, 1, 2)  # of prior draws
HIDDEN, STEPS, RATE, DECAY = 128, 200, 5e-3, 1e-2


def agreement(real, rebuilt, labels):
    """{name: Measure} of a judge's probabilities {factor: [n, C]} on real clips and on their reconstructions; labels {factor: int
    [n]}.

    accuracy: the same said of both in every factor (the protocol's figure; no label enters), {factor}: in one; real_{factor} and
    rebuilt_{factor}: judged right, real_joint and rebuilt_joint: in every factor.
    """
    said, again = verdicts(real), verdicts(rebuilt)
    found = {factor: said[factor] == again[factor] for factor in said}
    found = {"accuracy": np.all(list(found.values()), axis=0), **found}
    for kind, judged in (("real", said), ("rebuilt", again)):
        right = {factor: judged[factor] == labels[factor] for factor in judged}
        found |= {f"{kind}_{factor}": hits for factor, hits in right.items()}
        found[f"{kind}_joint"] = np.all(list(right.values()), axis=0)
    return {name: Measure(hits) for name, hits in found.items()}


def prior_entropies(probabilities):
    """Inter-entropy H(y), intra-entropy H(y|x) and KL of a judge's probabilities {factor: [n, C]} on clips from the prior, in
    nats, averaged over the factors."""
    each = np.array([entropies(p) for p in probabilities.values()])
    return dict(zip(("inter_entropy", "intra_entropy", "kl"), each.mean(0).tolist()))


class CodeClassifier(nn.Module):
    """p(factor | code) for each factor: code [n, D] -> {factor: logits [n, C]}, through one hidden layer.

    classes {factor: C}; mean, std [D]: those of the training codes.
    """

    def __init__(self, classes, mean, std):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.hidden = nn.Linear(len(mean), HIDDEN)
        self.heads = nn.ModuleDict(
            {factor: nn.Linear(HIDDEN, count) for factor, count in classes.items()}
        )

    def forward(self, code):
        features = F.leaky_relu(self.hidden((code - self.mean) / self.std))
        return {factor: head(features) for factor, head in self.heads.items()}


def train_code_classifier(codes, labels, classes, seed=0):
    """A `CodeClassifier` of codes [n, ...] with labels {factor: int [n]}, trained on all of them at once for STEPS steps."""
    codes = _flat(codes)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = CodeClassifier(classes, codes.mean(0), codes.std(0).clamp_min(1e-6))
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY, fused=True)
    targets = {factor: torch.as_tensor(labels[factor]) for factor in classes}
    for _ in range(STEPS):
        logits = network(codes)
        loss = sum(F.cross_entropy(logits[factor], targets[factor]) for factor in classes)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return network.eval()


@torch.no_grad()
def read_codes(classifier, codes):
    """What the classifier says of codes [n, ...]: {factor: int64 [n]}."""
    return {
        factor: logits.argmax(-1).numpy() for factor, logits in classifier(_flat(codes)).items()
    }


def code_table(train, train_labels, test, test_labels, classes, seed=0):
    """The disentanglement table: {name: share} of the test clips whose factor an MLP reads in a code.

    train, test: {code's name: [n, ...]}; labels {factor: int [n]}; classes {factor: C}. {code}_{factor}; as chance beside it
    {code}_{factor}_shuffled, learnt from labels that were shuffled, and majority_{factor}, the training clips' commonest value.
    """
    shuffled = np.random.default_rng(seed).permutation(len(next(iter(train_labels.values()))))
    wrong = {factor: values[shuffled] for factor, values in train_labels.items()}
    found = {}
    for name, codes in train.items():
        for mark, labels in (("", train_labels), ("_shuffled", wrong)):
            said = read_codes(train_code_classifier(codes, labels, classes, seed), test[name])
            right = shares({factor: said[factor] == test_labels[factor] for factor in classes})
            found |= {f"{name}_{factor}{mark}": right[factor] for factor in classes}
    for factor in classes:
        found[f"majority_{factor}"] = float(
            (test_labels[factor] == np.bincount(train_labels[factor]).argmax()).mean()
        )
    return found


def _flat(codes):
    return torch.as_tensor(np.asarray(codes)).float().flatten(1)
