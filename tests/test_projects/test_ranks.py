"""Two ranks of a real process group learn what one process does."""

import stmixer_mm.projects.denoising  # noqa: F401, I001 - before any host package
import test_mask_head
import test_track_queries as track_queries
import test_warp_forecast as forecasts
import tiny
import tiny_tubelets as tubelets
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope


def keyframes():
    """A detector and two clips, one of them without anybody."""
    return tiny.build_detector(), tiny.batch(tiny.two(), tiny.nobody())


def masks():
    """The same, of persons with masks."""
    samples = test_mask_head.two(), test_mask_head.nobody()
    return test_mask_head.detector(), tiny.batch(*samples)


def tubes():
    sample = tubelets.tube_sample(
        tubelets.LEAVES, tubelets.SPARSE, actions=((1,), (2,))
    )
    denoising = dict(type='DenoisingTubelets', box_noise=0, label_noise=0)
    model = tiny.build_detector(tubelets.tube_detector() | dict(denoising=denoising))
    return model, tiny.batch(sample, tubelets.tube_sample())


def forecasting():
    return tiny.build_detector(forecasts.forecasting()), forecasts.training_batch()


def sequences():
    """Two sequences of keyframes, in which somebody comes to an empty scene."""
    model = track_queries.detector(drop_prob=0, false_prob=0)
    return model, track_queries.sequences(*track_queries.COMES_AND_GOES)


MAKERS = (keyframes, masks, tubes, sequences, forecasting)


def of_rank(values, rank):
    """Every second sample, of each keyframe of sequences."""
    if isinstance(values[0], list):
        return [one[rank::2] for one in values]
    return values[rank::2]


def trained(model, data):
    """Parameters after a step, of the detector or of its wrapper."""
    model.train()  # batch norm keeps its statistics, which are those of a rank
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train_step(data, OptimWrapper(optimizer))
    return {
        name.removeprefix('module.'): value.detach()
        for name, value in model.named_parameters()
    }


def run_rank(rank, folder):
    init_default_scope('mmaction')
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=2
    )
    for make in MAKERS:
        model, data = make()
        data = {name: of_rank(values, rank) for name, values in data.items()}
        found = trained(MMDistributedDataParallel(model), data)
        if rank == 0:
            torch.save(found, folder / make.__name__)
    # A rank that ends with threads of the group running aborts at times.
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks_learn_what_one_process_does(tmp_path):
    mp.start_processes(run_rank, (tmp_path,), nprocs=2)
    for make in MAKERS:
        model, data = make()
        before = {name: value.clone() for name, value in model.named_parameters()}
        expected, found = trained(model, data), torch.load(tmp_path / make.__name__)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name] - before[name],
                value - before[name],
                rtol=1e-4,
                atol=1e-6,
                msg=lambda text, name=name: f'{name}: {text}',
            )
