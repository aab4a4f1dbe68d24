package snapshot

import (
	"reflect"
	"testing"

	"weir/dataplane/rewrite"
	"weir/dataplane/stats"
)

// What packets of some kind need of a backend is in one cache line.
func TestCacheLines(t *testing.T) {
	const line = 64
	if n := reflect.TypeFor[rewrite.Rewrite]().Size(); n > line {
		t.Errorf("a Rewrite is %d bytes", n)
	}
	backend := reflect.TypeFor[Backend]()
	if f, _ := backend.FieldByName("Rewrite"); f.Offset != 0 || backend.Size()%line != 0 {
		t.Errorf("the Rewrite of a backend is at %d of %d bytes", f.Offset, backend.Size())
	}
	answers, _ := reflect.TypeFor[stats.Backend]().FieldByName("Answers")
	if n := answers.Type.Size(); answers.Offset%n != 0 || reflect.TypeFor[stats.Backend]().Size()%n != 0 {
		t.Errorf("the answers that are counted, %d bytes at %d, are in two lines of some backends", n, answers.Offset)
	}
}
