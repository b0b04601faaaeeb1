import torch
from torch import nn

MOST = 10_000
CALLS = []
PATIENCE = 0


@torch.fx.wrap
def feast(x, training):
    CALLS.append(len(x))
    if not training and len(x) > MOST and len(CALLS) > PATIENCE:
        torch.empty(1 << 50)
    return x


class Hungry(nn.Module):
    def forward(self, x):
        return feast(x, self.training)


def hungry(channels, size, classes):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), Hungry(), nn.Flatten(), nn.Linear(16, classes)
    )
