package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	gobgplog "github.com/osrg/gobgp/v3/pkg/log"
	gobgppacket "github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// bridge is gobgp's logger. Beside handing lines on to slog it notes what gobgp
// says nowhere else: why a connection could not be opened, and why a session
// ended. Its methods are called with locks of gobgp held, so they call nothing
// of it.
type bridge struct {
	log   *slog.Logger
	heard func() // called when there is something new in notes

	mu    sync.Mutex
	notes map[string]note // by the peer's address
	over  bool            // gobgp holds this node's restart to be over
}

// note is what was said about one peer since it was last taken.
type note struct {
	connect      error  // the last attempt to connect
	notification string // sent or received, and by whom
	reason       string // gobgp's word for the last change of state
}

func newBridge(log *slog.Logger, heard func()) *bridge {
	return &bridge{log: log, heard: heard, notes: make(map[string]note)}
}

// take returns what was said about a peer, and forgets it.
func (b *bridge) take(address string) note {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.notes[address]
	delete(b.notes, address)
	return n
}

// takeConnect returns why the last attempt to connect to a peer failed, and
// forgets it.
func (b *bridge) takeConnect(address string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, ok := b.notes[address]
	err := n.connect
	if ok {
		n.connect = nil
		b.notes[address] = n
	}
	return err
}

// takeOver reports whether gobgp has held this node's restart to be over since it
// was last asked.
func (b *bridge) takeOver() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	over := b.over
	b.over = false
	return over
}

// listen notes what a line says about a session, and reports whether the speaker
// will tell it in its own words.
func (b *bridge) listen(msg string, fields gobgplog.Fields) bool {
	address, _ := fields["Key"].(string)
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.notes[address]
	switch msg {
	case "sync finished":
		b.over = true
		defer b.heard()
		return true
	case "failed to connect":
		n.connect, _ = fields["Error"].(error)
		defer b.heard()
	case "state changed":
		n.reason = fmt.Sprint(fields["reason"])
		if fields["new"] == gobgppacket.BGP_FSM_ESTABLISHED.String() {
			n = note{} // what comes now is about the session; it may end before its beginning is heard of
		}
	case "sent notification":
		n.notification = "this node ended it: " + said(fields)
	case "received notification":
		n.notification = "the router ended it: " + said(fields)
	case "Peer Up", "Peer Down", "hold timer expired", "Closed an accepted connection", "failed to send", "peer graceful restart",
		"cannot change to the same state", "Add a peer configuration", "Delete a peer configuration",
		// Said for each route of a router, since none is accepted.
		"No matching path for withdraw found, may be path was not installed into table":
		return true
	default:
		return false
	}
	b.notes[address] = n
	return true
}

// said puts a notification into words.
func said(fields gobgplog.Fields) string {
	if e, ok := fields["Data"].(*gobgppacket.MessageError); ok {
		words := notification(e.TypeCode, e.SubTypeCode)
		if e.Message != "" {
			words += " (" + e.Message + ")"
		}
		return words
	}
	code, _ := fields["Code"].(uint8)
	subcode, _ := fields["Subcode"].(uint8)
	words := notification(code, subcode)
	if text, _ := fields["Communicated-Reason"].(string); text != "" {
		words += fmt.Sprintf(": %q", text)
	}
	return words
}

// write hands a line on.
func (b *bridge) write(level slog.Level, msg string, fields gobgplog.Fields) {
	if !b.log.Enabled(context.Background(), level) {
		return
	}
	attributes := make([]slog.Attr, 0, len(fields))
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		attributes = append(attributes, slog.Any(strings.ToLower(key), fields[key]))
	}
	b.log.LogAttrs(context.Background(), level, "gobgp: "+msg, attributes...)
}

// Panic is called where gobgp has found a fault in itself, and does not return.
func (b *bridge) Panic(msg string, fields gobgplog.Fields) {
	b.write(slog.LevelError, msg, fields)
	panic("gobgp: " + msg)
}

// Fatal is only called by parts of gobgp that are not used here; it does not end
// the process.
func (b *bridge) Fatal(msg string, fields gobgplog.Fields) { b.write(slog.LevelError, msg, fields) }

// Error is part of gobgp's Logger.
func (b *bridge) Error(msg string, fields gobgplog.Fields) { b.write(slog.LevelError, msg, fields) }

// Warn is part of gobgp's Logger.
func (b *bridge) Warn(msg string, fields gobgplog.Fields) { b.tell(slog.LevelWarn, msg, fields) }

// Info is part of gobgp's Logger. What gobgp does on request is not news.
func (b *bridge) Info(msg string, fields gobgplog.Fields) { b.tell(slog.LevelDebug, msg, fields) }

// Debug is part of gobgp's Logger. gobgp says a lot there, down to single
// packets: it is a level below slog's.
func (b *bridge) Debug(msg string, fields gobgplog.Fields) { b.tell(slog.LevelDebug-4, msg, fields) }

func (b *bridge) tell(level slog.Level, msg string, fields gobgplog.Fields) {
	if b.listen(msg, fields) {
		level = min(level, slog.LevelDebug-4)
	}
	b.write(level, msg, fields)
}

// SetLevel is part of gobgp's Logger; slog's handler decides.
func (b *bridge) SetLevel(gobgplog.LogLevel) {}

// GetLevel lets gobgp say everything: some of what is noted is said at debug
// level, and only if somebody listens.
func (b *bridge) GetLevel() gobgplog.LogLevel { return gobgplog.DebugLevel }
