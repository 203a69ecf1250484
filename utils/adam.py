"""Adam as torch has it, without the seconds that its first step takes to import a compiler."""

import inspect

import torch

from utils.distributed import processes, rank

LARGE = 2**16  # numbers in a tensor from which on it is cut


class Adam(torch.optim.Adam):
    """torch.optim.Adam for programs that never compile.

    Torch wraps these methods so that torch.compile leaves them alone. The wrappers import torch's
    compiler, 1.6 s, even where nothing is compiled. Here they are taken off.
    """

    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class ShardedAdam(Adam):
    """Adam whose moments are shared out among the processes of a run: --shard_optimizer True.

    Torch's ZeroRedundancyOptimizer gives whole tensors to the processes, and most weights of a bank
    of experts are in one tensor. Here it is given pieces of tensors, cut between rows. The weights
    and the state dict are those of `Adam`.
    """

    found_inf: torch.Tensor

    def __init__(self, groups, **options):
        super().__init__(groups, **options)
        from torch.distributed.optim import ZeroRedundancyOptimizer  # slow to import

        count, self.pieces = processes(), {}
        for group in self.param_groups:
            for p in group["params"]:
                parts = p.detach().chunk(count) if p.numel() >= LARGE else (p.detach(),)
                self.pieces[p] = [part.requires_grad_() for part in parts]
        shared = [{"params": self._pieces_of(group)} for group in self.param_groups]
        self.shared = ZeroRedundancyOptimizer(shared, Adam, **options)

    def _pieces_of(self, group):
        return [piece for p in group["params"] for piece in self.pieces[p]]

    @torch.no_grad()
    def step(self, closure=None):
        """Update this process's pieces, then fetch the others' (all processes must call it)."""
        for group, shared in zip(self.param_groups, self.shared.param_groups):
            shared["lr"] = group["lr"]
        for p, pieces in self.pieces.items():
            grads = [None] * len(pieces) if p.grad is None else p.grad.chunk(len(pieces))
            for piece, grad in zip(pieces, grads):
                piece.grad = grad
        self.shared.optim.found_inf = self.found_inf
        self.shared.step()

    def state_dict(self):
        """The state of all pieces, joined, in the first process (all processes must call it)."""
        self.shared.consolidate_state_dict()
        whole = super().state_dict()
        if rank() == 0:
            found, at = self.shared.state_dict()["state"], 0
            for i, pieces in enumerate(self.pieces.values()):
                states = [found[at + n] for n in range(len(pieces)) if at + n in found]
                at += len(pieces)
                if states:
                    names = states[0].keys()
                    whole["state"][i] = {name: _joined([s[name] for s in states]) for name in names}
        return whole

    def load_state_dict(self, state_dict):
        """Take this process's pieces from the state of the whole."""
        super().load_state_dict(state_dict)
        own = {p for group in self.shared.optim.param_groups for p in group["params"]}
        for p, pieces in self.pieces.items():
            state = self.state.pop(p, {})
            for n, piece in enumerate(pieces):
                if state and piece in own:
                    parts = {k: v.chunk(len(pieces))[n] if v.dim() else v for k, v in state.items()}
                    self.shared.optim.state[piece] = {k: v.clone() for k, v in parts.items()}


def _joined(parts):
    return torch.cat(parts) if parts[0].dim() else parts[0]
