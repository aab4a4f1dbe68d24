// Package changelog remembers what of very many things has changed lately.
//
// The problem it solves: a snapshot depends on the health and the next hops of
// 100,000 backends, of which one changes. To look at all of them for that takes
// longer than everything that has to be done about it. So those who know of a
// change write it down, and a reader asks for what came after what it has seen.
// One that has fallen too far behind is told so, and looks at everything.
package changelog

import (
	"slices"
	"sync"
)

// kept is how many changes are remembered at least. With many more at once, to look
// at everything is no detour.
const kept = 4096

// Log is a list of keys of what has changed. The zero Log has none. It may be used
// from several goroutines.
type Log[K any] struct {
	mu     sync.Mutex
	before uint64 // how many there were before those in latest
	latest []K
}

// Add notes that something has changed. What it says now has to be readable
// already.
func (l *Log[K]) Add(keys ...K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.latest = append(l.latest, keys...)
	if extra := len(l.latest) - kept; extra > kept {
		l.before += uint64(extra)
		l.latest = slices.Clone(l.latest[extra:])
	}
}

// AddAll notes that anything may have changed.
func (l *Log[K]) AddAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.before += uint64(len(l.latest)) + 1
	l.latest = nil
}

// Since returns what has changed since an earlier call returned now, in order and
// some perhaps several times, or all: that anything may have. A reader that has
// seen nothing yet is told of all if since is Never.
func (l *Log[K]) Since(since uint64) (keys []K, now uint64, all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now = l.before + uint64(len(l.latest))
	if since == Never || since < l.before || since > now {
		return nil, now, true
	}
	return slices.Clone(l.latest[since-l.before:]), now, false
}

// Never is what a reader has seen that has seen nothing.
const Never = ^uint64(0)
