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
	directs, _ := reflect.TypeFor[page]().FieldByName("directs")
	if n := reflect.TypeFor[rewrite.Direct]().Size(); line%n != 0 || directs.Offset%line != 0 {
		t.Errorf("a Direct is %d bytes, the first one at %d", n, directs.Offset)
	}
	if n := reflect.TypeFor[stats.Traffic]().Size(); line%n != 0 {
		t.Errorf("what is counted is %d bytes", n)
	}
}
