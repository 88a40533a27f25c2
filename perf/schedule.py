"""How well a cohort of FLAIR's users is spread over N workers, from a model of client times.

    python perf/schedule.py                                  # the table of docs/scaling.md
    python perf/schedule.py --client_images 0.5 --spread 0.1

A client takes (images + client_images) * exp(noise) units of time, as perf/scale.py fits it; noise is what no scheduler
knows beforehand. User sizes are FLAIR's as ``fedflair synthesize --scale full`` has them, cut at max_num_user_images.
fedflair: groups by ``cohort_groups``, each handed to the first worker that is free. Static: as pfl-research deals a
cohort before the round, users by falling number of images, each to the worker with the fewest images so far (its
sizes cut alike, which favours it); implemented here anew. A round cannot be shorter than its total work over N, nor
than its longest client; "of the bound" is over the larger of the two.

    python perf/schedule.py --plan                           # rounds of larger fleets and models, on paper

What a round takes there: training by the model above, the parameters to each node one after another, the sums back to
the driver over one network card, and their addition there. Speeds are assumptions, to be replaced by measured ones.
"""

from __future__ import annotations

import argparse
import heapq

import numpy as np
import numpy.typing as npt

from fedflair.data.synthetic.users import sizes_by_partition
from fedflair.federated.aggregate import cohort_groups

NUM_USERS = 51_414
MAX_IMAGES = 512
FloatArray = npt.NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--client_images", type=float, default=0.5, help="fixed time of a client, in images")
    parser.add_argument("--spread", type=float, default=0.1, help="standard deviation of the log of the noise")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--plan", action="store_true", help="print the plan on paper instead")
    parser.add_argument("--image_seconds", type=float, default=2 / 2500, help="of a GPU, 2 epochs of ResNet-18")
    parser.add_argument("--network", type=float, default=25.0, help="gigabits a second of the driver's card")
    parser.add_argument("--adding", type=float, default=3.0, help="gigabytes of sums added a second")
    arguments = parser.parse_args()
    sizes = np.minimum(sizes_by_partition(NUM_USERS, 0)["train"], MAX_IMAGES)
    if arguments.plan:
        plan(sizes, arguments)
        return
    print(f"{len(sizes):,} users, {sizes.mean():.2f} images in the mean after the cut at {MAX_IMAGES}")
    print("users    cohort  workers  groups | makespan / (sum/N)       | of the bound         | longest client rules")
    print("                                 | fedflair  static         | fedflair  static     |")
    iid = np.full(len(sizes), 50)
    for name, population, cohort in (("natural", sizes, 200), ("natural", sizes, 5000), ("IID", iid, 200)):
        for num_workers in (2, 8, 64, 512):
            rows = []
            for repeat in range(arguments.repeats if cohort < 1000 else arguments.repeats // 5):
                generator = np.random.default_rng(repeat)
                images = generator.choice(population, cohort, replace=False)
                noise = np.exp(generator.normal(0, arguments.spread, cohort))
                rows.append(one_round(images, (images + arguments.client_images) * noise, num_workers))
            ours, static, ours_bound, static_bound, groups, ruled = np.mean(rows, axis=0)
            print(
                f"{name:<9}{cohort:<8}{num_workers:<9}{groups:<7.0f}| {ours:<10.3f}{static:<15.3f}"
                f"| {ours_bound:<10.3f}{static_bound:<11.3f}| {ruled:.0%} of rounds"
            )


def plan(sizes: npt.NDArray[np.int64], arguments: argparse.Namespace) -> None:
    """Seconds of a round of ResNet-18 (11.2 M parameters) and of a model 100 times as large and slow."""
    print("model   cohort  GPUs | train   weights out | exact: groups  sums back  added | fast: sums back  added")
    for larger, cohort, num_gpus in ((1, 200, 1), (1, 200, 8), (1, 5000, 8), (1, 5000, 64), (100, 5000, 64)):
        size, card, nodes = 11.2e6 * 4 * larger / 1e9, arguments.network / 8, max(1, num_gpus // 8)
        rows = []
        for repeat in range(10):
            generator = np.random.default_rng(repeat)
            images = generator.choice(sizes, cohort, replace=False)
            noise = np.exp(generator.normal(0, arguments.spread, cohort))
            times = (images + arguments.client_images) * noise * arguments.image_seconds * larger
            over_perfect, _, _, _, groups, _ = one_round(images, times, num_gpus)
            rows.append((over_perfect * float(times.sum()) / num_gpus, groups))
        train, groups = np.mean(rows, axis=0)
        remote = (nodes - 1) / nodes * size / card
        out, added = (nodes - 1) * size / card, size / arguments.adding
        print(
            f"{larger:>3} x   {cohort:<7} {num_gpus:<4} | {train:<7.1f} {out:<11.1f} | {groups:>13.0f}  "
            f"{groups * remote:<9.1f}  {groups * added:<5.1f} | {num_gpus * remote:>15.1f}  {num_gpus * added:.1f}"
        )


def one_round(images: npt.NDArray[np.int64], times: FloatArray, num_workers: int) -> tuple[float, ...]:
    """(ours, static) over sum/N, (ours, static) over the bound, number of groups, whether the longest client rules."""
    names = [str(k) for k in range(len(images))]
    groups = cohort_groups(names, lambda name: int(images[int(name)]))
    ours = dynamic([float(times[[int(name) for name in group]].sum()) for group in groups], num_workers)
    fixed = static(images, times, num_workers)
    perfect, longest = float(times.sum()) / num_workers, float(times.max())
    bound = max(perfect, longest)
    return ours / perfect, fixed / perfect, ours / bound, fixed / bound, len(groups), longest > perfect


def dynamic(times: list[float], num_workers: int) -> float:
    """Makespan where each item goes to the first worker that is free, in the order given."""
    free = [0.0] * num_workers
    for time in times:
        heapq.heapreplace(free, free[0] + time)
    return max(free)


def static(images: npt.NDArray[np.int64], times: FloatArray, num_workers: int) -> float:
    """Makespan where users are dealt before the round, largest first, to the worker with the fewest images."""
    load, taken = np.zeros(num_workers), np.zeros(num_workers)
    for user in np.argsort(-images, kind="stable"):
        worker = int(np.argmin(load))
        load[worker] += images[user]
        taken[worker] += times[user]
    return float(taken.max())


if __name__ == "__main__":
    main()
