"""How much each key adds to each query, from what an attention module gives when the key's weights are set to 0."""

from unittest import mock

import torch
from torch.nn import functional as F

softmax = F.softmax


def _without(layer, key):
    """Patches of attention's arithmetic, in which the weights of one key, of all heads of one layer, are 0."""
    seen = []

    def weights(scores, dim=-1, **options):
        found = softmax(scores, dim=dim, **options)
        seen.append(found)
        if len(seen) - 1 == layer and key is not None:
            found = found * (torch.arange(found.shape[-1]) != key)
        return found

    def attend(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
        scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        return weights(scores if attn_mask is None else scores + attn_mask) @ value

    return mock.patch.multiple(F, softmax=weights, scaled_dot_product_attention=attend)


def norms_of_what_is_added(model, module, images, layer, tokens):
    """(B, N, N): the length of what key m adds to query n in the outputs of a module, the attention of a layer."""
    outs = []

    def keep(module, given, out):
        outs.append(out[0] if isinstance(out, tuple) else out)

    with module.register_forward_hook(keep):
        for key in (None, *range(tokens)):
            with _without(layer, key):
                model(images)
    return torch.stack([(outs[0] - out).norm(dim=-1) for out in outs[1:]], dim=-1).detach()
