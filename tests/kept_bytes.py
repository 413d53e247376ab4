"""Memory that autograd keeps."""

import torch


def bytes_kept_for_backward(run, inputs):
    """Bytes that a computation keeps for its backward pass, without its inputs."""
    sizes = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    input_pointers = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = run()  # alive until everything is counted
    total = sum(size for data, size in sizes.items() if data not in input_pointers)
    del outputs
    return total
