package snapshot

import (
	"reflect"
	"testing"

	"weir/dataplane/rewrite"
	"weir/dataplane/stats"
)

// What every packet needs of a backend is in one cache line, with others' in the
// simplest case.
func TestCacheLines(t *testing.T) {
	const line = 64
	if n := reflect.TypeFor[rewrite.Rewrite]().Size(); n > line {
		t.Errorf("a Rewrite is %d bytes", n)
	}
	backend := reflect.TypeFor[Backend]()
	if f, _ := backend.FieldByName("Rewrite"); f.Offset != 0 || backend.Size()%line != 0 {
		t.Errorf("the Rewrite of a backend is at %d of %d bytes", f.Offset, backend.Size())
	}
	for _, dense := range []reflect.Type{reflect.TypeFor[rewrite.Direct](), reflect.TypeFor[stats.Traffic]()} {
		if line%dense.Size() != 0 {
			t.Errorf("a %s is %d bytes", dense, dense.Size())
		}
	}
	answers, _ := reflect.TypeFor[stats.Backend]().FieldByName("Answers")
	if n := answers.Type.Size(); answers.Offset%n != 0 || reflect.TypeFor[stats.Backend]().Size()%n != 0 {
		t.Errorf("the answers that are counted, %d bytes at %d, are in two lines of some backends", n, answers.Offset)
	}
}
