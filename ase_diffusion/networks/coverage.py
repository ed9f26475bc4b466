"""Independent choices of classes, given that every one of some classes occurs."""

from __future__ import annotations

import torch
from torch import Tensor

MOST = 8  # required classes: all their subsets are summed over
_LEAST, _TINY = 1e-4, 1e-14  # chance of a class in a choice; of all classes, below which sums of alternating signs are noise


def covering(logits: Tensor, required: Tensor, share: Tensor) -> Tensor:
    """Return logits of choices given that all required classes occur, each among the choices of its row.

    By inclusion and exclusion over the subsets S of the required classes, the chance that the other choices have all of them but
    the class e of choice i is the sum of (-1)^|S| prod_j (1 - p_j(S)) over the S without e and the j other than i; exact for
    independent choices, and added as a logarithm. Where there are fewer choices than classes, the logits come back.

    Parameters
    ----------
    logits : (B, N, K) Tensor
    required : (B, K) bool Tensor
        At most 8 classes of a row.
    share : (B, N) Tensor
        1 for a choice of its own, 1 / m for each of m that are always the same, 0 for what does not count.
    """
    most = int(required.sum(1).max())
    if most < 2:  # one class alone: nothing else is allowed where it is asked for
        return logits
    ranked, index = required.double().topk(most, dim=1)  # (B, M), 1 where there is a class
    subsets = torch.arange(2**most, device=logits.device)[:, None] >> torch.arange(most, device=logits.device) & 1  # (S, M)
    sign = (1.0 - 2.0 * (subsets.sum(1) % 2)) * (subsets[None] <= ranked[:, None]).all(2)  # (B, S), 0 with a class that is none
    index = index[:, None].expand(-1, logits.shape[1], -1)
    chosen = torch.softmax(logits.double(), -1).gather(2, index).clamp(min=_LEAST)  # (B, N, M)
    missed = torch.log1p(-(chosen @ subsets.double().T).clamp(max=1 - 1e-12))  # (B, N, S), no class of S
    others = (share.double()[..., None] * missed).sum(1, keepdim=True) - missed  # of all choices but this one
    terms = sign[:, None] * others.exp()  # (B, N, S)
    any_class = terms.sum(-1, keepdim=True)  # (B, N, 1)
    with_class = terms @ (1 - subsets.double())  # (B, N, M), the subsets without that class
    chance = any_class.expand(-1, -1, logits.shape[2]).scatter(2, index, with_class)
    gain = chance.clamp(min=_TINY).log()
    possible = (share.sum(1) > required.sum(1) - 0.5)[:, None] & (share > 0)
    return logits + torch.where(possible[..., None], gain, 0.0).to(logits)
