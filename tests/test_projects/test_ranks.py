"""Two ranks of a real process group learn what one process does.

That of keyframes alone, by the tools: test_distributed.py.
"""

import stmixer_mm.projects.denoising  # noqa: I001 - before any host package
import stmixer_mm.projects.memory  # noqa: F401
import test_mask_head
import tiny
import tiny_tubelets as tubelets
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch.distributed.fsdp import fully_shard


def denoising(kind='DenoisingQueries'):
    return dict(denoising=dict(type=kind, box_noise=0, label_noise=0))


def masks():
    """A detector and two clips, one of them without anybody."""
    samples = test_mask_head.sample_of(*test_mask_head.TWO), test_mask_head.sample_of()
    return test_mask_head.detector(), tiny.batch(*samples)


def noised():
    """Copies of two persons, and of one beside whom there is a copy of nobody."""
    model = tiny.build_detector(tiny.tiny_detector() | denoising())
    alone = tiny.data_sample([(20, 10, 60, 64)], [(3,)])
    return model, tiny.batch(tiny.two(), alone)


def tubes(head=None, other=(tubelets.ALWAYS,)):
    samples = (
        tubelets.tube_sample(*states, actions=((1,), (2,)))
        for states in ((tubelets.LEAVES, tubelets.SPARSE), other)
    )
    config = tubelets.tube_detector(head) | denoising('DenoisingTubelets')
    return tiny.build_detector(config), tiny.batch(*samples)


def tubes_of_one_action():
    """Of which one rank has nobody."""
    return tubes(tubelets.SOFTMAX, other=())


def remembering():
    """Keyframes of banks: two persons, and of one rank nobody whom a label is known of."""
    memory = dict(type='LongTermActions', width=16, drop_prob=0, forget_prob=0)
    config = dict(tiny.tiny_detector(), type='BankActions', memory=memory)
    config['data_preprocessor'].update(type='BankPreprocessor')
    model = tiny.build_detector(config)
    torch.nn.init.normal_(model.memory.actions.weight)
    samples = [tiny.two(bank='a', key=model.key, reach_s=99) for _ in range(2)]
    for sample, owners in zip(samples, ((1, 2), (0,)), strict=True):
        sample.persons, sample.remembered = (
            InstanceData(vectors=torch.rand(n, 32), bboxes=torch.rand(n, 4))
            for n in (len(owners), 3)
        )
        sample.persons.owners = torch.tensor(owners)
        sample.remembered.passed_s = torch.tensor([-1.0, 2.0, len(owners)])
    return model, dict(data_samples=samples)


def shard(model):
    """Shard each linear layer on its own, and what remains."""
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            fully_shard(module)
    return fully_shard(model)


MAKERS = masks, noised, tubes, tubes_of_one_action, remembering
WRAPPED = [*((make, MMDistributedDataParallel) for make in MAKERS), (noised, shard)]


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
    for make, wrap in WRAPPED:
        model, data = make()
        data = {name: values[rank::2] for name, values in data.items()}
        parameters = trained(wrap(model), data)
        if wrap is shard:
            parameters = {name: p.full_tensor() for name, p in parameters.items()}
        if rank == 0:
            torch.save(parameters, folder / f'{make.__name__}_{wrap.__name__}')
    # A rank that ends with threads of the group running aborts at times.
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks_learn_what_one_process_does(tmp_path):
    mp.start_processes(run_rank, (tmp_path,), nprocs=2)
    for make, wrap in WRAPPED:
        model, data = make()
        initial = {name: value.clone() for name, value in model.named_parameters()}
        parameters = torch.load(tmp_path / f'{make.__name__}_{wrap.__name__}')
        steps, expected = (
            {name: value - initial[name] for name, value in state.items()}
            for state in (parameters, trained(model, data))
        )
        torch.testing.assert_close(steps, expected, rtol=1e-4, atol=1e-6)
