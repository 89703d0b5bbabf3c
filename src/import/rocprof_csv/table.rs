//! Which of rocprof's tables it is, and where its columns are.

use super::record::Record;
use super::run::NUMBERED;

/// Names of columns: rocprofv3's, and rocprof's after them.
const COLUMNS: [&[&str]; 31] = [
    &["Kernel_Name", "KernelName"],
    &["Start_Timestamp", "BeginNs"],
    &["End_Timestamp", "EndNs"],
    &["Correlation_Id"],
    &["Process_Id", "pid"],
    &["Thread_Id", "tid"],
    &["Agent_Id", "gpu-id"],
    &["Queue_Id", "queue-id"],
    &["Stream_Id"],
    &["Workgroup_Size_X", "wgr"],
    &["Workgroup_Size_Y"],
    &["Workgroup_Size_Z"],
    &["Grid_Size_X", "grd"],
    &["Grid_Size_Y"],
    &["Grid_Size_Z"],
    &["LDS_Block_Size", "Group_Segment_Size", "lds"],
    &["Domain"],
    &["Function"],
    &["Direction"],
    &["Source_Agent_Id"],
    &["Destination_Agent_Id"],
    &["Operation"],
    &["Allocation_Size"],
    &["Guid"],
    &["Node_Id"],
    &["Logical_Node_Id"],
    &["Agent_Type"],
    &["Name"],
    &["Product_Name"],
    &["Cu_Count"],
    &["Wave_Front_Size"],
];

/// A column, by its place in [`COLUMNS`].
#[derive(Clone, Copy, Debug)]
pub enum Column {
    Kernel,
    Start,
    End,
    Correlation,
    Process,
    Thread,
    Agent,
    Queue,
    Stream,
    BlockX,
    BlockY,
    BlockZ,
    GridX,
    GridY,
    GridZ,
    Shared,
    Domain,
    Function,
    Direction,
    From,
    To,
    Operation,
    Bytes,
    Guid,
    Node,
    Logical,
    AgentType,
    Name,
    Product,
    Units,
    Wave,
}

/// What a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Kernels,
    /// Kernels of the older rocprof without `--timestamp on`.
    Timeless,
    Copies,
    Calls,
    Allocations,
    Agents,
    /// Nothing that becomes a row.
    Nothing,
}

/// Where columns are.
#[derive(Debug)]
pub struct Header {
    at: [Option<usize>; COLUMNS.len()],
    /// How many there are.
    pub columns: usize,
}

/// A record and where its values are.
pub struct Values<'a>(pub &'a Record, pub &'a Header);

/// What a table with this header has; `None`: it is none of rocprof's.
pub fn table(header: &Record) -> Option<Table> {
    let columns: Vec<&str> = (0..header.len()).map(|at| header.get(at)).collect();
    let has = |all: &[&str]| all.iter().all(|column| columns.contains(column));
    let times = has(&["Start_Timestamp", "End_Timestamp"]);
    Some(match () {
        () if has(&["Counter_Name", "Counter_Value"]) => Table::Nothing,
        () if has(&["Sample_Timestamp", "Exec_Mask"]) => Table::Nothing,
        () if has(&["Name", "Calls", "TotalDurationNs"]) => Table::Nothing,
        () if has(&["Kernel_Name"]) && times => Table::Kernels,
        () if has(&["Direction", "Kind"]) && times => Table::Copies,
        () if has(&["Domain", "Function"]) && times => Table::Calls,
        () if has(&["Operation", "Kind"]) && times => Table::Allocations,
        () if has(&["Node_Id", "Agent_Type"]) => Table::Agents,
        () if has(&["KernelName", "gpu-id", "BeginNs", "EndNs"]) => Table::Kernels,
        () if has(&["KernelName", "gpu-id", "queue-id"]) => Table::Timeless,
        () => return None,
    })
}

impl Header {
    /// Finds the columns of a table.
    pub fn of(header: &Record) -> Header {
        let find = |names: &[&str]| (0..header.len()).find(|&at| names.contains(&header.get(at)));
        let mut at = [None; COLUMNS.len()];
        for (place, names) in at.iter_mut().zip(&COLUMNS) {
            *place = find(names);
        }
        Header {
            at,
            columns: header.len(),
        }
    }
}

impl Values<'_> {
    /// A value as it stands; empty if the table has no such column.
    pub fn text(&self, column: Column) -> &str {
        match self.1.at[column as usize] {
            Some(at) => self.0.get(at),
            None => "",
        }
    }

    /// A value as a number, if it is one.
    pub fn number(&self, column: Column) -> Option<u64> {
        self.text(column).parse().ok()
    }

    /// The number at the end of `Agent 4`, and of `GPU 0`, which is another one; of older versions it is all there is.
    pub fn agent(&self, column: Column) -> Option<u32> {
        let text = self.text(column);
        let (word, number) = text.rsplit_once(' ').unwrap_or(("Agent", text));
        let number = number.parse().ok().filter(|&number| number < NUMBERED)?;
        match word {
            "Agent" => Some(number),
            "GPU" => Some(number | NUMBERED),
            _ => None,
        }
    }

    /// Three numbers; what is none is 1.
    pub fn size(&self, columns: [Column; 3]) -> [u64; 3] {
        columns.map(|column| self.number(column).unwrap_or(1))
    }
}
