package config

import "reflect"

// pending lists the keys whose feature does not work yet. A file that sets one to anything but its default is refused
// rather than half obeyed; take a line out once its feature works. The function, if any, says which other values work.
var pending = map[string]func(v any) bool{}

// refusePending adds an error for every pending key that is set.
func (f *file) refusePending() {
	for _, pl := range f.order {
		works, isPending := pending[pl.pattern]
		if !isPending {
			continue
		}
		value := pl.value.Interface()
		if works != nil && works(value) || works == nil && isDefault(pl) {
			continue
		}
		f.addAt(pl.name, pl.key, "not available yet: "+pl.key, "leave it out")
	}
}

// isDefault says whether a key is set to what it would be without it. An empty list is as good as none.
func isDefault(pl *place) bool {
	if pl.value.Kind() == reflect.Slice && pl.value.Len() == 0 && pl.def.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(pl.value.Interface(), pl.def.Interface())
}
