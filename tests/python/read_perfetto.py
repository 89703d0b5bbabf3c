"""Reads a Perfetto trace with Perfetto's own messages and prints its slices, instants and counters, one a line.

Every slice ends, inside the one around it; every interned text is known; every track has a descriptor.
"""

import json
import sys

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

trace = pb.Trace()
with open(sys.argv[1], "rb") as file:
    trace.ParseFromString(file.read())
known = pb.Trace()
known.CopyFrom(trace)
known.DiscardUnknownFields()
assert known.ByteSize() == trace.ByteSize(), "fields that Perfetto does not know"

tracks, names, categories, keys = {}, {}, {}, {}
events = []
for number, packet in enumerate(trace.packet):
    assert packet.trusted_packet_sequence_id == 1
    if packet.HasField("track_descriptor"):
        track = packet.track_descriptor
        assert track.uuid and (not track.HasField("parent_uuid") or track.parent_uuid in tracks)
        tracks.setdefault(track.uuid, pb.TrackDescriptor()).MergeFrom(track)
        continue
    if packet.sequence_flags & pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED:
        names, categories, keys = {}, {}, {}
    assert packet.sequence_flags & pb.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
    for table, new in (
        (names, packet.interned_data.event_names),
        (categories, packet.interned_data.event_categories),
        (keys, packet.interned_data.debug_annotation_names),
    ):
        for entry in new:
            assert entry.iid and entry.iid not in table
            table[entry.iid] = entry.name
    event = packet.track_event
    args = {}
    for annotation in event.debug_annotations:
        value = getattr(annotation, annotation.WhichOneof("value"))
        if annotation.WhichOneof("value") == "legacy_json_value":
            value = json.loads(value)
        args[keys[annotation.name_iid]] = value
    category = [categories[iid] for iid in event.category_iids]
    name = names[event.name_iid] if event.HasField("name_iid") else None
    events.append((packet.timestamp, number, event, category, name, args))


def title(uuid):
    track = tracks[uuid]
    own = track.process.process_name if track.HasField("process") else track.name
    if track.HasField("thread"):
        own = f"{track.thread.thread_name}:{track.thread.tid}"
    return f"{title(track.parent_uuid)}/{own}" if track.HasField("parent_uuid") else own


# As trace_processor does: by time, and of one moment in the order of the file.
events.sort(key=lambda event: event[:2])
Type = pb.TrackEvent
open_slices, lines = {}, []
for ts, _, event, category, name, args in events:
    stack = open_slices.setdefault(event.track_uuid, [])
    if event.type == Type.TYPE_SLICE_BEGIN:
        line = {"ph": "X", "ts": ts, "track": title(event.track_uuid), "cat": category[0], "name": name, "args": args}
        line["flows"] = list(event.flow_ids)
        line["depth"] = len(stack)
        stack.append(line)
        lines.append(line)
    elif event.type == Type.TYPE_SLICE_END:
        line = stack.pop()
        line["dur"] = ts - line["ts"]
        assert line["dur"] >= 0
    elif event.type == Type.TYPE_INSTANT:
        lines.append({"ph": "i", "ts": ts, "track": title(event.track_uuid), "cat": category[0], "name": name, "args": args})
    else:
        assert tracks[event.track_uuid].HasField("counter")
        value = event.counter_value if event.HasField("counter_value") else event.double_counter_value
        lines.append({"ph": "C", "ts": ts, "track": title(event.track_uuid), "value": value})
assert not any(open_slices.values()), "a slice never ends"
for line in lines:
    print(json.dumps(line, sort_keys=True))
