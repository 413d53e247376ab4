"""Memory that autograd keeps."""

import torch


def bytes_kept_for_backward(run, given):
    """Bytes kept of a computation, without those of the given tensors."""
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    given = {tensor.untyped_storage().data_ptr() for tensor in given}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = run()  # alive until everything is counted
    total = sum(size for where, size in kept.items() if where not in given)
    del outputs
    return total
