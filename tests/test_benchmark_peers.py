"""Peers get the same weights and must give the same results; otherwise timings are not comparable."""

import pytest
import torch
from torch.nn import functional as F

from visattn.decoding import BeamSearch, decode
from visattn.models import LSTMDecoder
from visattn.studies.benchmarks import captioner, tutorial
from visattn.studies.benchmarks.peers import Architecture, of_timm, of_transformers, of_vit_pytorch, ours
from visattn.training.objectives import CaptionLoss
from visattn.vocabulary import PAD

PEERS = {"timm": of_timm, "transformers": of_transformers, "vit_pytorch": of_vit_pytorch}


def scrambled(architecture):
    torch.manual_seed(0)
    state = architecture.build().state_dict()
    return {name: weight + 0.1 * torch.randn_like(weight) for name, weight in state.items()}


@pytest.mark.parametrize("heads", [1, 5])
@pytest.mark.parametrize("package", PEERS)
def test_every_peer_has_our_outputs_and_maps(package, heads):
    pytest.importorskip(package)
    architecture = Architecture(7, (24, 40), 8, 30, 3, heads, 2.0)
    weights = scrambled(architecture)
    mine, theirs = ours(architecture, weights), PEERS[package](architecture, weights)
    images = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(1))
    targets, gradients = torch.tensor([3, 5]), []
    for peer in (mine, theirs):
        peer.model.train()
        F.cross_entropy(peer.logits(images), targets).backward()
        gradients.append(sum(parameter.grad.square().sum() for parameter in peer.model.parameters()))
        peer.model.eval()
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=0)
    with torch.inference_mode():
        torch.testing.assert_close(theirs.logits(images), mine.logits(images), rtol=0, atol=1e-5)
        seen, expected = theirs.maps(images), mine.maps(images)
        assert len(seen) == len(expected) == 3
        for one, other in zip(seen, expected, strict=True):
            assert one.shape == (2, heads, 16, 16)
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def decoders(dropout=0.0):
    torch.manual_seed(2)
    decoder = LSTMDecoder(41, 13, hidden=11, embedding=7, dropout=dropout)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return decoder, tutorial.TutorialDecoder.of(decoder)


def test_the_tutorials_decoder_has_our_logits_our_loss_and_our_gradients():
    mine, theirs = decoders()
    sizes = captioner.Sizes(words=41, value=13, grid=(2, 3), batch=5, batches=1, shortest=2, longest=6)
    tokens, values = captioner.captions(sizes, seed=3), torch.randn(5, 6, 13)
    logits, glimpses = mine(mine.prepare(values, (2, 3)), tokens[:, :-1])
    loss = CaptionLoss()(logits, glimpses, tokens[:, 1:]).loss
    taught = theirs(values, tokens, (tokens != PAD).sum(dim=1))
    for row, length, own in zip(taught.predictions, taught.decode_lengths, logits[taught.sort_ind], strict=True):
        torch.testing.assert_close(row[:length], own[:length], rtol=0, atol=1e-5)
    their_loss = tutorial.loss(taught)
    torch.testing.assert_close(their_loss, loss, rtol=1e-6, atol=0)
    loss.backward()
    their_loss.backward()
    torch.testing.assert_close(theirs.attention.encoder_att.weight.grad, mine.attention.score.key.weight.grad)
    torch.testing.assert_close(theirs.fc.weight.grad, mine.out.weight.grad)
    torch.testing.assert_close(theirs.f_beta.weight.grad, mine.beta.weight.grad)


def test_the_tutorials_beam_finds_our_captions():
    mine, theirs = decoders()
    captioner.endless(mine)
    theirs = tutorial.TutorialDecoder.of(mine)
    values = torch.randn(7, 6, 13, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        found = decode(mine, mine.prepare(values, (2, 3)), BeamSearch(3, length_penalty=0), 5).tokens
        others = [tutorial.beam_search(theirs, image, 3, 5) for image in values.split(1)]
    assert found.tolist() == others
    assert len({tuple(caption) for caption in others}) > 1


def test_the_tutorials_beam_lets_captions_end():
    _, theirs = decoders()
    values = torch.randn(7, 6, 13, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        theirs.fc.bias[2] += 2
    captions = [tutorial.beam_search(theirs, image, 3, 9) for image in values.split(1)]
    assert all(2 not in caption for caption in captions)
    assert min(len(caption) for caption in captions) < 9
