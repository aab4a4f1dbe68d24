package snapshot

import (
	"reflect"
	"testing"

	"weir/dataplane/rewrite"
	"weir/dataplane/stats"
)

// What every packet needs of a backend is in one cache line, and so is what is
// counted of it.
func TestCacheLines(t *testing.T) {
	const line = 64
	if n := reflect.TypeFor[rewrite.Rewrite]().Size(); n > line {
		t.Errorf("a Rewrite is %d bytes", n)
	}
	backend := reflect.TypeFor[Backend]()
	if f, _ := backend.FieldByName("Rewrite"); f.Offset != 0 || backend.Size()%line != 0 {
		t.Errorf("the Rewrite of a backend is at %d of %d bytes", f.Offset, backend.Size())
	}
	counts := reflect.TypeFor[stats.Backend]()
	answers, _ := counts.FieldByName("Answers")
	if end := answers.Offset + answers.Type.Size(); end > line/2 || counts.Size()%(line/2) != 0 {
		t.Errorf("what is counted ends at %d of %d bytes", end, counts.Size())
	}
}
