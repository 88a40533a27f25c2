"""The tools that ``perf/train.py`` and ``perf/evaluate.py`` run side by side, each in a process of its own."""
