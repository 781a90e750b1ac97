# SPDX-License-Identifier: MIT
"""TTR twice: the tool's and the harness's were written independently, and must agree."""
from e2e import rouse, seeded, work
from harness.ttr import ttr_table_ms, utilization


def random_stalls(dice, vcpus):
    """Stalls as a restore has them: all vCPUs until the start, then many short ones."""
    start = dice.randrange(1, 2_000_000)
    stalls = [(0, start)] * vcpus
    for _ in range(dice.randrange(200)):
        begin = start + dice.randrange(5_000_000)
        stalls.append((begin, begin + dice.choice((100, 5_000, 80_000)) + dice.randrange(100)))
    return stalls


def write_log(stalls, vcpus):
    path = work('stalls')
    lines = ['rouse-stalls 1', f'vcpus {vcpus}'] + [f'{begin} {end}' for begin, end in stalls]
    path.write_text('\n'.join(lines) + '\n')
    return path


def test_tool_and_harness_agree_on_ttr():
    dice = seeded()
    for _ in range(40):
        vcpus = dice.choice((1, 2, 3, 8))
        stalls = random_stalls(dice, vcpus)
        table = rouse('ttr', '--json', write_log(stalls, vcpus)).expect(0).json['ttr_table']
        for tools, ours in zip(table, ttr_table_ms(stalls, vcpus), strict=True):
            for field in ('utilization', 'window_ms'):
                assert abs(tools[field] - ours[field]) < 1e-9, (tools, ours)
            assert abs(tools['ttr_ms'] - ours['ttr_ms']) <= 0.002, (vcpus, stalls, tools, ours)


def test_no_window_after_ttr_is_below_the_threshold():
    dice = seeded()
    vcpus, window = 2, 100_000
    stalls = random_stalls(dice, vcpus)
    ttr = next(row['ttr_ms'] for row in ttr_table_ms(stalls, vcpus)
               if row['utilization'] == 0.90 and row['window_ms'] == 100) * 1000
    for _ in range(2000):
        begin = ttr + 1 + dice.randrange(6_000_000)
        length = window + dice.randrange(3 * window)
        assert utilization(stalls, vcpus, begin, length) >= 0.90 - 1e-9
    # Just before it there is a bad window: a shortest one, or one that ends with a stall.
    lengths = [window] + [end - ttr + 2 for _, end in stalls if end - ttr + 2 >= window]
    assert ttr == 0 or any(utilization(stalls, vcpus, ttr - 2, length) < 0.90
                           for length in lengths)
