"""A plain PyTorch loop over the users: what one writes first. FedAvg in contiguous float32, operators on all cores."""

from __future__ import annotations

import torch
from torch import nn

from peers.files import read_user
from peers.network import PeerNetwork
from peers.task import Receive, Reply, Task


def serve(task: Task, receive: Receive, reply: Reply) -> None:
    torch.manual_seed(0)
    model = PeerNetwork(task).to(task.device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if task.compiled:
        # Users end in batches of any size: one graph for all of them, not one each.
        model.network = torch.compile(model.network, dynamic=True)
    server_optimizer = torch.optim.AdamW(parameters, 0.1, eps=0.01, betas=(0.9, 0.99), weight_decay=0.0)
    while users := receive():
        server = [p.detach().clone() for p in parameters]
        total = [torch.zeros_like(p) for p in parameters]
        for user_id in users:
            with torch.no_grad():
                for p, value in zip(parameters, server):
                    p.copy_(value)
            pixels, targets = read_user(task.pfl_path, "train", user_id, task.num_labels)
            pixels, targets = pixels.to(task.device), targets.to(task.device)
            optimizer = torch.optim.SGD(parameters, lr=task.learning_rate)
            for _ in range(task.num_epochs):
                for start in range(0, len(pixels), task.batch_size):
                    batch = slice(start, start + task.batch_size)
                    optimizer.zero_grad()
                    model.loss(pixels[batch], targets[batch]).backward()
                    nn.utils.clip_grad_norm_(parameters, task.max_grad_norm)
                    optimizer.step()
            with torch.no_grad():
                for p, value, sum_ in zip(parameters, server, total):
                    sum_ += p - value
        with torch.no_grad():
            for p, value, sum_ in zip(parameters, server, total):
                p.copy_(value)
                p.grad = -sum_ / len(users)
        server_optimizer.step()
        reply({})
