package appliance

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"weir/dataplane/stats"
)

func TestTellsOfWhatIsNew(t *testing.T) {
	var log bytes.Buffer
	a := &Appliance{log: slog.New(slog.NewTextHandler(&log, nil))}
	var before, now stats.Counters
	now.Drops[stats.AddressConflict] = 3
	now.Drops[stats.NoService] = 7 // nothing that somebody has to be told of
	a.tell(&before, &now)
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "claims a VIP") || !strings.Contains(text, "drops=3") {
		t.Errorf("logged %q", text)
	}
	log.Reset()
	a.tell(&now, &now)
	a.tell(&now, &before) // a worker that does not answer takes its counts along
	if log.Len() != 0 {
		t.Errorf("logged %q without anything new", log.String())
	}
}
