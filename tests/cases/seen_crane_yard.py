"""The planner of a container yard: simulates which stack each arriving container goes to, or drives the crane by the plan.

Injected, in cases named stacks: for each container, each stack's cost (how many containers will have to be dug out of the way) is worked out
anew from all of its containers, though a move changes one or two stacks: Python loops, in a program of nothing else: cpu-bound-python. The
twin keeps each stack's count and its earliest departure, and brings them up to date when a container comes or goes. The plans are the same.

Injected, in cases named crane: the crane works on its own (a thread stands in for its controller; a move takes it 3 ms) and the planner looks
every 10 ms whether it has done: waiting. The twin waits for the controller's event. The moves are the same.

healthy-yard: kept counts, and the next moves are planned while the crane works.
"""

import hashlib
import queue
import sys
import threading
import time

import work

NEEDS = ""
CASES = {
    "slow-stacks": "slow stacks",
    "slow-crane": "slow crane",
    "fixed-stacks": "fixed stacks",
    "fixed-crane": "fixed crane",
    "healthy-yard": "healthy yard",
}
LABEL = {"slow-stacks": ["cpu-bound-python"], "slow-crane": ["waiting"]}
ALSO = {
    "slow-stacks": ["preprocessing-bound"],
    "slow-crane": ["idle-no-work", "cpu-bound-python"],  # the planning between the moves is Python code
    "fixed": ["cpu-bound-python", "waiting", "idle-no-work"],  # a planner is Python code; the crane takes its time
    "healthy": ["cpu-bound-python", "waiting", "idle-no-work"],
}
WHERE = "digs|cost|earliest|Stack|choose|finish|await_done|poll|PollingCrane|sleep|done"
MEASURE = "mean"
STACKS, HEIGHT = 60, 7
MOVE_S, POLL_S = 0.003, 0.010


def travel(start, end):
    """How long the gantry takes: it speeds up over the first three places and slows down over the last three."""
    places = abs(end - start)
    ramp = min(places, 6)
    return ramp * 2.4 + (places - ramp) * 1.1 + (1.5 if end < start else 0.0)


class Stack:
    """A stack of containers, the lowest first, each told by when it leaves."""

    def __init__(self, place):
        self.place, self.leaves = place, []

    def put(self, leaves):
        self.leaves.append(leaves)

    def take(self):
        return self.leaves.pop()

    def digs(self):
        """How many containers stand on one that leaves earlier."""
        found, low = 0, 1 << 30
        for leaves in self.leaves:
            if leaves > low:
                found += 1
            else:
                low = leaves
        return found

    def earliest(self):
        return min(self.leaves, default=1 << 30)

    def cost(self, leaves):
        blocks = leaves > self.earliest()
        return (1000 if blocks else 0) + self.digs() * 8 + len(self.leaves)


class KeptStack(Stack):
    """The same, with what stands at each level worked out when it comes to stand there."""

    def __init__(self, place):
        super().__init__(place)
        self.lows, self.dug = [1 << 30], [0]

    def put(self, leaves):
        super().put(leaves)
        self.dug.append(self.dug[-1] + (self.lows[-1] < leaves))
        self.lows.append(min(self.lows[-1], leaves))

    def take(self):
        self.dug.pop()
        self.lows.pop()
        return super().take()

    def digs(self):
        return self.dug[-1]

    def earliest(self):
        return self.lows[-1]


class Yard:
    def __init__(self, kind, seed=11):
        self.stacks = [kind(place) for place in range(STACKS)]
        self.state, self.clock, self.seal = seed, 0, hashlib.sha256()
        for _ in range(STACKS * HEIGHT * 6 // 10):
            self.arrive()

    def draw(self, below):
        self.state = (self.state * 1103515245 + 12345) % (1 << 31)
        return (self.state >> 8) % below

    def choose(self, leaves, but=None):
        """The stack on which a container is least in the way."""
        best, least = None, None
        for stack in self.stacks:
            if stack is but or len(stack.leaves) >= HEIGHT:
                continue
            if stack.place % 12 == 0 and leaves % 8:  # the places with a plug are for reefers
                continue
            cost = stack.cost(leaves), travel(STACKS // 2, stack.place)
            if least is None or cost < least:
                best, least = stack, cost
        return best

    def move(self, source, target):
        self.seal.update(b"%d>%d " % (source, target))

    def arrive(self):
        leaves = self.clock + 20 + self.draw(900)
        stack = self.choose(leaves)
        stack.put(leaves)
        self.move(-1, stack.place)

    def depart(self):
        """The container that leaves next goes, and those above it are put elsewhere."""
        stack = min(self.stacks, key=lambda stack: stack.earliest())
        first = stack.earliest()
        while (above := stack.take()) != first:
            other = self.choose(above, but=stack)
            other.put(above)
            self.move(stack.place, other.place)
        self.move(stack.place, -1)

    def hour(self, trucks):
        """Trucks bring and fetch containers in turn."""
        for _ in range(trucks):
            self.clock += 1
            self.arrive()
            self.depart()


class Crane(threading.Thread):
    """Stands in for the controller of the crane."""

    def __init__(self):
        super().__init__(name="crane", daemon=True)
        self.orders, self.done, self.moved = queue.SimpleQueue(), threading.Event(), 0

    def order(self, hour):
        self.done.clear()
        self.orders.put(hour)

    def run(self):
        while self.orders.get() is not None:
            time.sleep(MOVE_S)
            self.moved += 1
            self.done.set()

    def await_done(self):
        self.done.wait()


class PollingCrane(Crane):
    def await_done(self):
        while not self.done.is_set():
            time.sleep(POLL_S)


def drive(yard, crane, trucks, ahead):
    """A step: the moves of an hour are planned, the crane makes them; it may work on the last hour's meanwhile."""
    crane.start()

    def step(_):
        if not ahead:
            yard.hour(trucks)
            crane.order(trucks)
            crane.await_done()
        else:
            crane.order(trucks)
            yard.hour(trucks)
            crane.await_done()

    return step


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    if kind == "stacks":
        yard = Yard(Stack if slow else KeptStack)
        work.run(lambda _: yard.hour(16), 900 if slow else 1700)
    elif kind == "crane":
        yard = Yard(KeptStack)
        work.run(drive(yard, PollingCrane() if slow else Crane(), 18, ahead=False), 240 if slow else 500)
    else:
        yard = Yard(KeptStack)
        work.run(drive(yard, Crane(), 24, ahead=True), 700)
    print(yard.seal.hexdigest()[:16], file=sys.stderr)


if __name__ == "__main__":
    main()
