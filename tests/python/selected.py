"""For settings that leave something out: pause, start_on, exclude."""

import json

import inferscope


def before():
    pass


def during():
    pass


def after():
    pass


def main():
    before()
    with inferscope.scope("measured"):
        during()
    inferscope.pause()
    after()
    assert not inferscope.recording()
    inferscope.resume()
    json.dumps([1])


main()
