"""Adam as torch has it, without the seconds that its first step takes to import a compiler."""

import inspect

import torch


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
