package cluster

import (
	"context"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"
)

// logWriter takes memberlist's log lines, such as
//
//	[WARN] memberlist: Refuting a suspect message (from: lb2)
//
// to slog. A line that is the same as one before, but for a port, is passed once
// in a while, since with a wrong key each attempt to join would give several.
type logWriter struct {
	log *slog.Logger

	mu   sync.Mutex
	last map[string]time.Time
}

const (
	// logRepeat is the time in which the same line is not repeated.
	logRepeat = time.Minute
	// logKept bounds the lines remembered.
	logKept = 256
)

func newLogWriter(l *slog.Logger) *logWriter {
	return &logWriter{log: l, last: make(map[string]time.Time)}
}

// sourcePort is the part of a line that differs between connections.
var sourcePort = regexp.MustCompile(`:[0-9]+\b`)

// Write is part of io.Writer; it gets whole lines.
func (w *logWriter) Write(line []byte) (int, error) {
	level, text := parseLine(string(line))
	wrong := wrongKey(text)
	if wrong {
		level = slog.LevelError
	}
	if !w.log.Enabled(context.Background(), level) || w.seen(sourcePort.ReplaceAllString(text, "")) {
		return len(line), nil
	}
	if wrong {
		w.log.Error("a node speaks with another key: set the same cluster.key on all nodes", "detail", text)
	} else {
		w.log.Log(context.Background(), level, "cluster: "+text)
	}
	return len(line), nil
}

func (w *logWriter) seen(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if at, is := w.last[text]; is && now.Sub(at) < logRepeat {
		return true
	}
	if len(w.last) >= logKept {
		clear(w.last)
	}
	w.last[text] = now
	return false
}

// parseLine splits a line into its level and the rest. What memberlist calls an
// error is mostly that a node cannot be reached, which is its job to deal with.
func parseLine(line string) (slog.Level, string) {
	levels := map[string]slog.Level{
		"[DEBUG]": slog.LevelDebug, "[INFO]": slog.LevelInfo, "[WARN]": slog.LevelWarn,
		"[ERR]": slog.LevelWarn, "[ERROR]": slog.LevelWarn,
	}
	line = strings.TrimSpace(line)
	first, rest, _ := strings.Cut(line, " ")
	level, known := levels[first]
	if !known {
		return slog.LevelWarn, line
	}
	return level, strings.TrimPrefix(rest, "memberlist: ")
}

// wrongKey recognises what memberlist says of a message that it cannot decrypt, or
// that another node could not.
func wrongKey(text string) bool {
	return strings.Contains(text, "no installed keys could decrypt")
}
